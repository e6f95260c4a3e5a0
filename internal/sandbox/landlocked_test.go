package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature/featuretest"
)

// system are the folders that every program reads.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/sys", "/nowhere"}

// site is a place for attacks: folders inside and outside of the sandbox, and a process outside.
type site struct {
	account
	python          string
	inside, outside string
	victim          map[string]any // what victim.py prints
	spec            FilesSpec
}

func newSite(t *testing.T, a account) *site {
	t.Helper()
	s := &site{account: a}
	python, folders := a.python(t)
	s.python = python
	dir, err := os.MkdirTemp("", "spacehost-test-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.inside, s.outside = filepath.Join(dir, "inside"), filepath.Join(dir, "outside")
	readable := filepath.Join(dir, "readable")
	for _, folder := range []string{s.inside, s.outside, readable} {
		makeFolder(t, folder)
	}
	for _, file := range []string{"outside/secret", "outside/removable", "readable/file"} {
		write(t, filepath.Join(dir, file), "secret in a file")
	}
	for _, script := range []string{"attacks.py", "victim.py", "ordinary.py"} {
		text, err := os.ReadFile(filepath.Join("testdata", script))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(readable, script), string(text))
	}
	s.own(t, dir)
	s.startVictim(t, filepath.Join(readable, "victim.py"))
	s.victim["inside"], s.victim["outside"], s.victim["readable"] = s.inside, s.outside, filepath.Join(readable, "file")
	s.spec.Read = slices.Concat(system, folders, []string{readable})
	s.spec.Write = []string{s.inside, "/proc", "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/shm"}
	s.spec.Connect = []uint16{s.port("listed"), s.port("bind_listed")}
	s.spec.Bind = []uint16{s.port("bind_listed")}
	return s
}

func (s *site) port(name string) uint16 { return uint16(s.victim[name].(float64)) }

func makeFolder(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// own gives the folder and all below it to the account.
func (s *site) own(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, s.uid, -1)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// startVictim starts a process outside of the sandbox. It ends with the test.
func (s *site) startVictim(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command(s.account.mustPython(t), script)
	cmd.SysProcAttr, cmd.Stderr = s.sys, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("the process outside of the sandbox was hit:", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.victim)
	}
	if err != nil {
		t.Fatalf("victim.py printed %q: %v", line, err)
	}
}

func (a account) mustPython(t *testing.T) string {
	t.Helper()
	path, _ := a.python(t)
	return path
}

// command returns a command of a script as the account.
func (s *site) command(script string, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	cmd = exec.Command(s.python, append([]string{"-B", filepath.Join(filepath.Dir(s.victim["readable"].(string)), script)}, args...)...)
	output = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = output, output, s.sys, s.inside
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CANARY=in the environment", "TMPDIR=" + s.inside, "HOME=" + s.inside}
	return cmd, output
}

// confined runs the command in the sandbox.
func (s *site) confined(t *testing.T, cmd *exec.Cmd) (left []string, err error) {
	t.Helper()
	started, err := s.spec.Confine(cmd)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Start()
	left, errStarted := started()
	if err != nil {
		t.Fatal(err)
	}
	return left, errors.Join(errStarted, cmd.Wait())
}

// attackReport is what attacks.py prints.
type attackReport struct {
	Answers      map[string]string
	PID          int
	Canary       string
	Argv         []string
	Folder       string
	Descriptors  []int
	Capabilities uint64
	Files        [2]uint64
}

func (s *site) attack(t *testing.T, confine bool) (got attackReport, pid int, left []string) {
	t.Helper()
	args, err := json.Marshal(s.victim)
	if err != nil {
		t.Fatal(err)
	}
	cmd, output := s.command("attacks.py", string(args), "an argument")
	if confine {
		left, err = s.confined(t, cmd)
	} else {
		err = cmd.Run()
	}
	if err == nil {
		err = json.Unmarshal(output.Bytes(), &got)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return got, cmd.Process.Pid, left
}

// refusedAttacks are the answers at level `files`. All others succeed.
var refusedAttacks = map[string]string{
	"read_outside": "EACCES", "read_link_to_outside": "EACCES", "list_outside": "EACCES", "write_outside": "EACCES",
	"truncate_outside": "EACCES", "create_outside": "EACCES", "make_folder_outside": "EACCES", "remove_outside": "EACCES",
	"rename_into_outside": "EACCES", "link_from_outside": "EXDEV", "write_read_only": "EACCES", "device_node": "EACCES",
	"signal_outside": "EPERM", "pidfd_outside": "EPERM", "environment_outside": "EACCES", "memory_outside": "EACCES",
	"process_vm_readv": "EPERM", "descriptor_outside": "EPERM", "ptrace": "EPERM", "kernel_settings": "EROFS",
	"connect_unlisted": "EACCES", "connect_unlisted_v6": "EACCES", "connect_unlisted_mapped": "EACCES",
	"connect_mptcp": "EPROTONOSUPPORT", "connect_fastopen_sendto": "EOPNOTSUPP", "connect_fastopen_sendmsg": "EOPNOTSUPP",
	"connect_fastopen_option": "EACCES", "bind_unlisted": "EACCES", "bind_any": "EACCES",
	"abstract_stream": "EPERM", "abstract_datagram": "EPERM", "raw_socket": "EPERM", "packet_socket": "EAFNOSUPPORT",
	"unshare": "EPERM", "change_owner": "EPERM",
}

// rootOnly are attacks that an ordinary user cannot make even without the sandbox.
var rootOnly = map[string]string{"kernel_settings": "EACCES", "raw_socket": "EPERM", "packet_socket": "EPERM", "change_owner": "EPERM"}

// laterAttacks are the attacks that a Landlock without a restriction lets through.
var laterAttacks = map[string][]string{
	"truncating files":      {"truncate_outside"},
	"TCP ports":             {"connect_unlisted", "connect_unlisted_v6", "connect_unlisted_mapped", "connect_fastopen_option", "bind_unlisted", "bind_any"},
	"signals":               {"signal_outside", "pidfd_outside"},
	"abstract unix sockets": {"abstract_stream", "abstract_datagram"},
}

// Without the sandbox each attack succeeds, so the attacks are real. Otherwise a mistake in attacks.py would look like
// a refusal.
func TestAttacksSucceedWithoutSandbox(t *testing.T) {
	for _, a := range accounts() {
		t.Run(a.name, func(t *testing.T) {
			got, _, _ := newSite(t, a).attack(t, false)
			for _, name := range slices.Sorted(maps.Keys(got.Answers)) {
				want := "ok"
				if a.uid != 0 && rootOnly[name] != "" {
					want = rootOnly[name]
				}
				if got := got.Answers[name]; got != want {
					t.Errorf("%s: got %s, want %s", name, got, want)
				}
			}
		})
	}
}

func TestLevelFiles(t *testing.T) {
	requireFiles(t)
	for _, a := range accounts() {
		t.Run(a.name, func(t *testing.T) {
			s := newSite(t, a)
			got, _, left := s.attack(t, true)
			want := maps.Clone(refusedAttacks)
			if a.uid != 0 {
				want["kernel_settings"] = "EACCES"
			}
			for _, words := range left {
				restriction, _, _ := strings.Cut(words, " (")
				for _, name := range laterAttacks[restriction] {
					want[name] = "ok"
				}
			}
			for name := range refusedAttacks {
				if _, tried := got.Answers[name]; !tried {
					t.Errorf("%s was not tried", name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(got.Answers)) {
				expected := want[name]
				if expected == "" {
					expected = "ok"
				}
				if got := got.Answers[name]; got != expected {
					t.Errorf("%s: got %s, want %s", name, got, expected)
				}
			}
			if text, err := os.ReadFile(filepath.Join(s.outside, "secret")); string(text) != "secret in a file" {
				t.Errorf("the file outside is %q: %v", text, err)
			}
		})
	}
}

// The program gets the pid, the arguments, the environment, the folder and the descriptors of its command.
func TestProgramReplacesTheHelper(t *testing.T) {
	requireFiles(t)
	for _, a := range accounts() {
		t.Run(a.name, func(t *testing.T) {
			s := newSite(t, a)
			s.spec.Limits = []Limit{{unix.RLIMIT_NOFILE, 100, 200}}
			inherited, err := unix.FcntlInt(0, unix.F_DUPFD, 50) // as from a shell that started spacehost
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(inherited)
			got, pid, _ := s.attack(t, true)
			got.Answers = nil
			want := attackReport{PID: pid, Canary: "in the environment", Argv: []string{"an argument"}, Folder: s.inside,
				Descriptors: []int{0, 1, 2}, Files: [2]uint64{100, 200}}
			if a.uid == 0 {
				want.Capabilities = 1 << unix.CAP_DAC_OVERRIDE
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// A Space's LD_PRELOAD must not reach the helper, and nothing of the command is public.
func TestHelperHasNoEnvironment(t *testing.T) {
	cmd := exec.Command("/bin/true", "secret")
	cmd.Env = []string{"LD_PRELOAD=/tmp/evil.so"}
	started, err := (FilesSpec{}).Confine(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Env == nil || len(cmd.Env) > 0 || strings.Contains(fmt.Sprint(cmd.Args), "secret") {
		t.Errorf("the helper gets the environment %q and the arguments %q", cmd.Env, cmd.Args)
	}
	if _, err := started(); err == nil || !strings.Contains(err.Error(), "ended before it was confined") {
		t.Errorf("got error %v without a process", err)
	}
}

func TestOrdinaryProgramsWork(t *testing.T) {
	requireFiles(t)
	for _, a := range accounts() {
		t.Run(a.name, func(t *testing.T) {
			s := newSite(t, a)
			cmd, output := s.command("ordinary.py", fmt.Sprint(s.port("bind_listed")))
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.ExtraFiles = []*os.File{w}
			_, err = s.confined(t, cmd)
			w.Close()
			if err != nil || output.String() != "all right\n" {
				t.Errorf("%v\n%s", err, output)
			}
		})
	}
}

func TestFailedStepEndsTheStart(t *testing.T) {
	requireFiles(t)
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	touch := []string{"/usr/bin/touch", filepath.Join(dir, "ran")}
	all := FileRules{Read: system, Write: []string{dir}}
	for name, c := range map[string]struct {
		spec FilesSpec
		argv []string
		want string
	}{
		"limits":             {FilesSpec{all, []Limit{{99, 1, 1}}}, touch, "level files: limits: set resource limit 99 to 1: invalid argument"},
		"landlock":           {FilesSpec{FileRules: FileRules{Read: []string{loop}}}, touch, "level files: landlock: open " + loop + ": too many levels of symbolic links"},
		"program missing":    {FilesSpec{FileRules: all}, []string{"/usr/bin/nowhere"}, "level files: execute /usr/bin/nowhere: no such file or directory"},
		"program not listed": {FilesSpec{FileRules: FileRules{Write: []string{dir}}}, touch, "level files: execute /usr/bin/touch: permission denied"},
		"none":               {FilesSpec{FileRules: all}, touch, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(c.argv[0], c.argv[1:]...)
			started, err := c.spec.Confine(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			text := ""
			if _, err := started(); err != nil {
				text = err.Error()
			}
			_ = cmd.Wait()
			_, errRan := os.Stat(touch[1])
			_ = os.Remove(touch[1])
			if ran := errRan == nil; text != c.want || ran != (c.want == "") {
				t.Errorf("got error %q, program ran: %v; want error %q", text, ran, c.want)
			}
			if code := cmd.ProcessState.ExitCode(); c.want != "" && code != exitConfinement {
				t.Errorf("got exit code %d, want %d", code, exitConfinement)
			}
		})
	}
}

func init() {
	// The arguments are the ABI, a folder that may be read, a file in it and a file outside.
	fakes["older landlock"] = func() {
		var abi int
		_, _ = fmt.Sscan(os.Args[1], &abi)
		if _, err := restrict(abi, FileRules{Read: os.Args[2:3], Write: os.Args[2:3], Connect: []uint16{80}}); err != nil {
			fmt.Println(err)
		}
		_, errInside := os.ReadFile(os.Args[3])
		_, errOutside := os.ReadFile(os.Args[4])
		fmt.Println(errInside == nil, errors.Is(errOutside, os.ErrPermission))
	}
}

// Each ABI has its own set of rights, and a ruleset with a right that the kernel does not know is refused.
func TestOlderLandlockRestrictsFiles(t *testing.T) {
	probe := requireFiles(t)
	inside, outside := filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "file")
	write(t, inside, "x")
	write(t, outside, "x")
	for abi := 1; abi <= probe.ABI; abi++ {
		if out, _ := runFake(t, "older landlock", fmt.Sprint(abi), filepath.Dir(inside), inside, outside); out != "true true\n" {
			t.Errorf("ABI %d: inside readable, outside refused: got %q", abi, out)
		}
	}
}

// The rights are those of struct landlock_ruleset_attr in each kernel.
func TestRestrictionsByABI(t *testing.T) {
	const since6, since5 = "named unix sockets", "signals, abstract unix sockets, named unix sockets"
	for _, c := range []struct {
		abi             int
		fs, net, scoped uint64
		left            string
	}{
		{1, 1<<13 - 1, 0, 0, "truncating files, TCP ports, device ioctls, " + since5},
		{2, 1<<14 - 1, 0, 0, "truncating files, TCP ports, device ioctls, " + since5},
		{3, 1<<15 - 1, 0, 0, "TCP ports, device ioctls, " + since5},
		{4, 1<<15 - 1, 3, 0, "device ioctls, " + since5},
		{5, 1<<16 - 1, 3, 0, since5},
		{6, 1<<16 - 1, 3, 3, since6},
		{8, 1<<16 - 1, 3, 3, since6},
		{9, 1<<17 - 1, 3, 3, ""},
		{12, 1<<17 - 1, 3, 3, ""},
	} {
		attr, left := handled(c.abi)
		for i, words := range left {
			left[i], _, _ = strings.Cut(words, " (")
		}
		if got := strings.Join(left, ", "); got != c.left {
			t.Errorf("ABI %d leaves out %q, want %q", c.abi, got, c.left)
		}
		want := unix.LandlockRulesetAttr{Handled_access_fs: c.fs, Handled_access_net: c.net, Scoped: c.scoped}
		if attr != want {
			t.Errorf("ABI %d: got %+v, want %+v", c.abi, attr, want)
		}
	}
}

func TestPortsAreRefusedByDefault(t *testing.T) {
	probe := requireFiles(t)
	if probe.ABI < 4 {
		featuretest.Missing(t, "no %s", "Landlock with TCP ports")
	}
	s := newSite(t, accounts()[0])
	s.spec.Connect, s.spec.Bind = nil, nil
	got, _, _ := s.attack(t, true)
	for _, name := range []string{"connect_listed", "bind_listed"} {
		if got.Answers[name] != "EACCES" {
			t.Errorf("%s without a list: got %s, want EACCES", name, got.Answers[name])
		}
	}
}
