package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fixture is a sandbox with a script as its interpreter.
type fixture struct {
	*Sandbox
	t       *testing.T
	out     bytes.Buffer
	sockets []*os.File
	channel *os.File // our end
}

// systemMounts are the mounts that a shell and Python need.
func systemMounts() (all []Mount) {
	for _, dir := range []string{"/usr", "/etc"} {
		all = append(all, Mount{Kind: ReadOnly, Source: dir, Target: dir})
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if to, err := os.Readlink("/" + name); err == nil {
			all = append(all, Mount{Kind: Link, Source: to, Target: "/" + name})
		} else if _, err := os.Stat("/" + name); err == nil {
			all = append(all, Mount{Kind: ReadOnly, Source: "/" + name, Target: "/" + name})
		}
	}
	return all
}

// systemPython returns an interpreter of /usr, which the mounts of system contain.
func systemPython(t *testing.T) string {
	t.Helper()
	const path = "/usr/bin/python3"
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("these tests need %s: %v", path, err)
	}
	return path
}

// start runs a Python script in a sandbox.
func start(t *testing.T, spec Spec, script string) *fixture {
	t.Helper()
	spec.Root = filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(spec.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(systemMounts(), spec.Mounts...)
	if spec.Dir == "" {
		spec.Dir = "/"
	}
	spec.Argv, spec.Env = []string{systemPython(t), "-c", script}, append(spec.Env, "PATH=/usr/bin:/bin")
	f := &fixture{t: t}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "channel")
	defer theirs.Close()
	f.channel = os.NewFile(uintptr(fds[0]), "channel")
	t.Cleanup(func() { f.channel.Close() })
	if f.Sandbox, err = New(spec, theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	f.Cmd.Stdout, f.Cmd.Stderr = &f.out, &f.out
	if err := f.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Cmd.Process.Kill(); _ = f.Cmd.Wait() })
	if f.sockets, err = f.Begin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(f.sockets) })
	return f
}

// output waits for the end and returns what the script printed.
func (f *fixture) output() string {
	f.t.Helper()
	_ = f.Cmd.Wait() // the exit code is checked by Exit
	return strings.TrimSpace(f.out.String())
}

func (f *fixture) wantOutput(want string) {
	f.t.Helper()
	if got := f.output(); got != want {
		f.t.Errorf("the script printed %q, want %q", got, want)
	}
}

func TestExit(t *testing.T) {
	for script, want := range map[string]Exit{
		"raise SystemExit(7)":                {Code: 7},
		"pass":                               {},
		"import os; os.kill(os.getpid(), 9)": {Signal: syscall.SIGKILL},
		"import os, signal; os.kill(os.getpid(), 11)":  {Signal: syscall.SIGSEGV},
		"import os\nif os.fork(): raise SystemExit(3)": {Code: 3},
	} {
		f := start(t, Spec{}, script)
		f.output()
		if got, ok := f.AwaitExit(5 * time.Second); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", script, got, ok, want)
		}
	}
}

// TestView compares everything that a script sees with what it was given.
func TestView(t *testing.T) {
	dir := t.TempDir()
	canary := filepath.Join(dir, "outside")
	for _, name := range []string{"outside", "own", "given"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "text"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := start(t, Spec{Mounts: []Mount{
		{Kind: ReadWrite, Source: filepath.Join(dir, "own"), Target: "/home/own"},
		{Kind: ReadOnly, Source: filepath.Join(dir, "given"), Target: filepath.Join(dir, "given")},
		{Kind: Text, Target: "/made/hosts", Text: "127.0.0.1 localhost\n"},
	}}, fmt.Sprintf(`
import os
def attempt(f):
    try: return f()
    except OSError as e: return type(e).__name__
print(sorted(os.listdir("/")), sorted(os.listdir("/proc/self/fd")))
print(attempt(lambda: open("/home/own/text").read()), attempt(lambda: open("/home/own/new", "w").write("x")))
given = %q + "/given/"
print(attempt(lambda: open(given + "text").read()), attempt(lambda: open(given + "new", "w")))
print(attempt(lambda: os.listdir(%q)), attempt(lambda: open("/new", "w")), attempt(lambda: open("/made/hosts", "w")))
print(attempt(lambda: open("/proc/sys/kernel/hostname", "w")), any(os.access(p, os.W_OK) for p in ("/proc/sysrq-trigger", "/proc/irq", "/proc/bus")))
print([p for p in os.listdir("/proc") if p.isdigit()], os.getpid(), os.getuid(), os.getgid(), os.uname().nodename)
print([l.split()[1] for l in open("/proc/self/status") if l.startswith(("Cap", "NoNewPrivs"))])
print(attempt(lambda: os.open("/dev/null", os.O_RDWR) > 2), len(os.urandom(4)), attempt(lambda: os.openpty()[0] > 2), attempt(lambda: open("/dev/shm/x", "w").write("x")))
print(open("/proc/1/stat").read().split(")")[0], attempt(lambda: os.readlink("/proc/1/root")), attempt(lambda: os.open("/proc/1/fd/0", os.O_RDONLY)), attempt(lambda: open("/proc/1/mem", "rb")))
`, dir, canary))
	dirs := "['" + strings.Join(append([]string{"bin", "dev", "etc", "home", "lib", "lib64", "made", "proc", "sbin"}, strings.Split(strings.Trim(dir, "/"), "/")[0], "usr"), "', '") + "']"
	want := []string{
		dirs + " ['0', '1', '2', '3', '4']", // 3 is the channel, 4 the folder that listdir reads
		"own 1",
		"given OSError",
		"FileNotFoundError OSError OSError",
		"OSError False",
		fmt.Sprintf("['1', '%d'] %[1]d 1000 1000 space", f.RunnerPID()),
		"['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '1']",
		"True 4 True 1",
		"1 (spacehost-init PermissionError PermissionError PermissionError",
	}
	if got := f.output(); got != strings.Join(want, "\n") {
		t.Errorf("the script saw\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "own", "new")); string(text) != "x" {
		t.Errorf("a file written inside is %q outside", text)
	}
}

// TestOverlay changes, removes and adds files of a folder that others share.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	lower, upper, work := filepath.Join(dir, "a:b,c"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{lower, upper, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"changed", "removed"} {
		if err := os.WriteFile(filepath.Join(lower, name), []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := start(t, Spec{Mounts: []Mount{{Kind: Overlay, Source: lower, Target: "/shared", Upper: upper, Work: work}}}, `
import os
os.chdir("/shared")
open("changed", "a").write(" and after"); os.remove("removed"); open("added", "w").write("x")
print(sorted(os.listdir(".")), open("changed").read())`)
	f.wantOutput("['added', 'changed'] before and after")
	for _, name := range []string{"changed", "removed"} {
		if text, err := os.ReadFile(filepath.Join(lower, name)); string(text) != "before" {
			t.Errorf("%s of the shared folder: %q, %v", name, text, err)
		}
	}
	if entries, _ := os.ReadDir(lower); len(entries) != 2 {
		t.Errorf("the shared folder has %v", entries)
	}
}

// TestDial connects to a server inside, and gets ECONNREFUSED where none listens.
func TestDial(t *testing.T) {
	f := start(t, Spec{}, `
import socket
s = socket.create_server(("127.0.0.1", 7000))
print("listening", flush=True)
c, _ = s.accept()
c.sendall(b"hello " + c.recv(100)); c.close()
s.accept()`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := f.Dial(ctx, 7001); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a server: %v", err)
	}
	conn, err := f.Dial(ctx, 7000)
	for errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil { // the script has not listened yet
		conn, err = f.Dial(ctx, 7000)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); string(text) != "hello world" {
		t.Errorf("read %q, %v", text, err)
	}
	_ = f.Cmd.Process.Kill()
	_ = f.Cmd.Wait()
	for ctx.Err() == nil && !errors.Is(err, ErrGone) {
		_, err = f.Dial(ctx, 7000)
	}
	if !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v", err)
	}
}

// TestSockets connects from inside to addresses of which none exists there. The host accepts.
func TestSockets(t *testing.T) {
	f := start(t, Spec{CatchAll: true, Sockets: []Socket{
		{"device", "tcp4", "127.0.0.1:443"}, {"web", "tcp4", "0.0.0.0:443"}, {"names", "udp4", "127.0.0.1:53"},
	}}, `
import socket
def ask(address):
    try:
        with socket.create_connection(address, 5) as s: return s.recv(100).decode()
    except OSError as e: return type(e).__name__
print(ask(("127.0.0.1", 443)), ask(("8.8.8.8", 443)), ask(("10.1.2.3", 443)), ask(("10.1.2.3", 444)))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(b"name", ("127.0.0.1", 53)); print(u.recv(100).decode())
print([n for _, n in socket.if_nameindex()])`)
	if len(f.sockets) != 3 {
		t.Fatalf("%d sockets", len(f.sockets))
	}
	for i, file := range f.sockets[:2] {
		l, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%d: %s", i, c.LocalAddr())
				c.Close()
			}
		}()
	}
	names, err := net.FilePacketConn(f.sockets[2])
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	go func() {
		buffer := make([]byte, 100)
		n, from, err := names.ReadFrom(buffer)
		if err == nil {
			_, _ = names.WriteTo(append(buffer[:n], " answered"...), from)
		}
	}()
	f.wantOutput("0: 127.0.0.1:443 1: 8.8.8.8:443 1: 10.1.2.3:443 ConnectionRefusedError\nname answered\n['lo']")
}

// TestEndsWithTheHost closes the host's end, as the kernel does after SIGKILL. A daemon inside must end too.
func TestEndsWithTheHost(t *testing.T) {
	f := start(t, Spec{}, `
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/usr/bin/sleep", ["sleep", "4711"], {})
    os._exit(0)
os.write(3, b"ready\n")
time.sleep(600)`)
	if line, err := bufio.NewReader(f.channel).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	inside := descendants(f.Cmd.Process.Pid)
	if len(inside) < 2 {
		t.Fatalf("only %v run below init", inside)
	}
	f.Close()
	_ = f.Cmd.Wait()
	for _, pid := range inside {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d still runs: %v", pid, err)
		}
	}
}

// descendants waits until the daemon of the script is a child of init.
func descendants(root int) (found []int) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && len(found) < 2; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", root))
		found = nil
		for _, field := range strings.Fields(string(text)) {
			pid, _ := strconv.Atoi(field)
			if command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.HasPrefix(command, []byte("sleep")) || bytes.Contains(command, []byte("python")) {
				found = append(found, pid)
			}
		}
	}
	return found
}

// TestHostPID translates pids. A pid of the host means nothing inside.
func TestHostPID(t *testing.T) {
	f := start(t, Spec{}, `
import os, time
child = os.fork()
if child == 0: time.sleep(600)
os.write(3, b"%d\n" % child); time.sleep(600)`)
	line, err := bufio.NewReader(f.channel).ReadString('\n')
	child, _ := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || child == 0 {
		t.Fatalf("%q, %v", line, err)
	}
	for _, inside := range []int{1, f.RunnerPID(), child} {
		pid, err := f.HostPID(t.Context(), inside)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if want := fmt.Sprintf("NSpid:\t%d\t%d\n", pid, inside); err != nil || !bytes.Contains(status, []byte(want)) {
			t.Errorf("%d inside is %d, %v: %s", inside, pid, err, status)
		}
	}
	for _, none := range []int{-1, 0, child + 1, os.Getpid() + 100_000} {
		if pid, err := f.HostPID(t.Context(), none); err == nil {
			t.Errorf("%d inside is %d", none, pid)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // either result is right, and no descriptor may remain
		_, _ = f.HostPID(cancelled, child)
	}
}

func TestSignalsAreForwarded(t *testing.T) {
	f := start(t, Spec{}, `
import os, signal, time
def end(*_): print("asked to end"); raise SystemExit(4)
signal.signal(signal.SIGTERM, end); os.write(3, b"ready\n"); time.sleep(600)`)
	if line, err := bufio.NewReader(f.channel).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := f.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	f.wantOutput("asked to end")
	if got, ok := f.AwaitExit(5 * time.Second); !ok || got != (Exit{Code: 4}) {
		t.Errorf("got %+v, %v", got, ok)
	}
}

// TestFailedStepIsNamed demands what cannot be. No process may remain.
func TestFailedStepIsNamed(t *testing.T) {
	for _, test := range []struct {
		name string
		spec Spec
		step string
		errs error
	}{
		{"missing folder", Spec{Mounts: []Mount{{Kind: ReadOnly, Source: "/does/not/exist", Target: "/x"}}}, "open the view of files", syscall.ENOENT},
		{"missing interpreter", Spec{Argv: []string{"/does/not/exist"}}, "start the interpreter", syscall.ENOENT},
		{"foreign address", Spec{Sockets: []Socket{{"a", "tcp4", "192.0.2.77:80"}}}, "open the network", syscall.EADDRNOTAVAIL},
	} {
		test.spec.Root = filepath.Join(t.TempDir())
		test.spec.Dir = "/"
		s, err := New(test.spec, os.Stdin)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = s.Begin()
		failed, ok := errors.AsType[*StepError](err)
		if !ok || failed.Step != test.step || !errors.Is(err, test.errs) {
			t.Errorf("%s: %v, want step %q and %v", test.name, err, test.step, test.errs)
		}
		s.Close()
		exit, _ := errors.AsType[*exec.ExitError](s.Cmd.Wait())
		if exit == nil || exit.ExitCode() != initFailed {
			t.Errorf("%s: init exited with %v", test.name, exit)
		}
	}
}

// TestFailureIsReadAfterTheEnd: a host that is slow to read gets the report of a failed step, not the reset of a channel
// that was closed with an unread message.
func TestFailureIsReadAfterTheEnd(t *testing.T) {
	s, err := New(Spec{Root: t.TempDir(), Mounts: []Mount{{Kind: ReadOnly, Source: "/does/not/exist", Target: "/x"}}}, os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := send(s.control, message{Op: "go"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.closeTheirs()
	_ = s.Cmd.Wait() // the report has its error
	if m, _, err := receive(s.control); err != nil || m.Op != "failed" || m.Step != StepView {
		t.Errorf("got %+v, %v; want the failed step %q", m, err, StepView)
	}
}

// TestProbe succeeds where the tests above do.
func TestProbe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	probe, err := Probe(dir)
	if err != nil || probe.Err != nil || !probe.Overlay {
		t.Errorf("%+v, %v", probe, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v remain", left)
	}
	if _, err := Probe("/proc"); err == nil {
		t.Error("/proc can be written")
	}
	t.Setenv("SPACEHOST_DISABLE", "userns")
	if probe, err := Probe(dir); err != nil || probe.Err == nil {
		t.Errorf("disabled: %+v, %v", probe, err)
	}
}

// TestInitCrashes ends init before each step. Begin reports it, and no process or descriptor remains.
func TestInitCrashes(t *testing.T) {
	t.Run("namespaces", func(t *testing.T) { initCrashes(t, 0) })
	t.Run("users", func(t *testing.T) { requireUsers(t); initCrashes(t, userA) })
}

func initCrashes(t *testing.T, user uint32) {
	steps := (&initProcess{}).steps()
	for _, step := range steps {
		testEnv = []string{crashAt + "=" + step.name}
		defer func() { testEnv = nil }()
		before := descriptors(t)
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Spec{User: user, Root: t.TempDir(), Dir: "/", Argv: []string{"/bin/true"}, Mounts: systemMounts()}, null)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Begin(); err == nil {
			t.Errorf("%s: no error", step.name)
		}
		_ = s.Cmd.Wait() // it has crashed
		s.Close()
		null.Close()
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors, %d before", step.name, after, before)
		}
	}
	if len(steps) < 8 {
		t.Errorf("only %d steps", len(steps))
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
