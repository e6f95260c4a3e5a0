package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature/featuretest"
)

// Users of sandboxes in tests.
const (
	userA = 261001
	userB = 261002
)

// requireUsers skips the test if this process cannot give a sandbox a uid of its own.
func requireUsers(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		featuretest.Missing(t, "no %s", "root: only root can run a sandbox as another user")
	}
	if probe, err := ProbeUser(t.TempDir(), userA); err != nil || probe.Err != nil {
		featuretest.Missing(t, "no %s", fmt.Sprintf("sandbox with a user of its own: %v, %v", probe.Err, err))
	}
}

// privateFolder returns a folder of the tests' user that no other user can enter, with files by name.
func privateFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantOwner checks the owner of a file on disk.
func wantOwner(t *testing.T, path string, uid uint32) {
	t.Helper()
	var info unix.Stat_t
	if err := unix.Lstat(path, &info); err != nil || info.Uid != uid || info.Gid != uid {
		t.Errorf("%s belongs to %d:%d (%v), want %d", path, info.Uid, info.Gid, err, uid)
	}
}

// TestUserHasOwnUID checks the credentials of every process of a sandbox, from inside and from outside.
func TestUserHasOwnUID(t *testing.T) {
	requireUsers(t)
	f := start(t, Spec{User: userA, Processes: 64}, `
import os, resource
print(os.getuid(), os.getgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_NPROC)[0], flush=True)
os.write(3, b"ready"); os.read(3, 1)`)
	if _, err := f.channel.Read(make([]byte, 8)); err != nil {
		t.Fatal(err, f.out.String())
	}
	runner, err := f.HostPID(t.Context(), f.RunnerPID())
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"init": f.Cmd.Process.Pid, "the interpreter": runner} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]string{"Uid": strings.Repeat(fmt.Sprintf("%d\t", userA), 4), "Gid": strings.Repeat(fmt.Sprintf("%d\t", userA), 4), "Groups": ""} {
			if got := statusField(t, string(text), field); got != strings.TrimSpace(want) {
				t.Errorf("%s of %s is %q, want %q", field, name, got, want)
			}
		}
	}
	f.channel.Close()
	f.wantOutput("1000 1000 [] 64")
}

// TestUserFiles checks what a user of its own may do with files of another owner, and who owns them on disk afterwards.
func TestUserFiles(t *testing.T) {
	requireUsers(t)
	own, owned, given := privateFolder(t, map[string]string{"a": "own"}), privateFolder(t, map[string]string{"a": "owned"}), privateFolder(t, map[string]string{"a": "given"})
	if err := os.Chmod(given, 0o755); err != nil {
		t.Fatal(err)
	}
	other := privateFolder(t, map[string]string{"a": "other"})
	for _, path := range []string{other, filepath.Join(other, "a")} {
		if err := os.Chown(path, 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	f := start(t, Spec{User: userA, Mounts: []Mount{
		{Kind: ReadWrite, Source: own, Target: "/own"},
		{Kind: ReadWrite, Source: other, Target: "/other"},
		{Kind: ReadOnly, Source: owned, Target: "/owned", Owned: true},
		{Kind: ReadOnly, Source: filepath.Join(owned, "a"), Target: "/one/file", Owned: true},
		{Kind: ReadOnly, Source: given, Target: "/given"},
	}}, `
import os
def attempt(f):
    try: return f()
    except OSError as e: return type(e).__name__
def read(path): return attempt(lambda: open(path).read())
def write(path): return attempt(lambda: open(path, "w").write("x"))
print(read("/own/a"), write("/own/a"), write("/own/new"), attempt(lambda: os.mkdir("/own/folder")), os.stat("/own/a").st_uid, os.stat("/own/new").st_uid)
print(read("/other/a"), write("/other/new"), os.stat("/other/a").st_uid)
print(read("/owned/a"), write("/owned/a"), read("/one/file"), os.stat("/owned/a").st_uid)
print(os.listdir("/given"), read("/given/a"), write("/given/new"), os.stat("/given/a").st_uid)
print(read("/etc/shadow"), read("/proc/sys/kernel/hostname").strip(), write("/proc/sys/kernel/hostname"))
print(attempt(lambda: os.chown("/own/a", 0, 0)), attempt(lambda: os.mknod("/own/null", 0o20666, os.makedev(1, 3))), attempt(lambda: os.chmod("/own/a", 0o4755)))`)
	f.wantOutput(`own 1 1 None 1000 1000
other 1 1000
owned OSError owned 1000
['a'] PermissionError OSError 65534
PermissionError space OSError
OSError PermissionError None`)
	for _, name := range []string{"a", "new", "folder"} {
		wantOwner(t, filepath.Join(own, name), 0)
	}
	wantOwner(t, filepath.Join(other, "new"), 4711)
}

// TestUserOverlay changes, removes and adds files of a shared folder as a user of its own. On disk the layer is root's. The
// folder that contains the layer is not in the view.
func TestUserOverlay(t *testing.T) {
	requireUsers(t)
	lower := privateFolder(t, map[string]string{"changed": "before", "removed": "before", "deep/er/moved": "before"})
	dir := privateFolder(t, map[string]string{"upper/of an earlier start": "", "secret": "of another layer"})
	work := filepath.Join(dir, "upper.work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	f := start(t, Spec{User: userA, Mounts: []Mount{{Kind: Overlay, Source: lower, Target: "/a/b/shared", Upper: filepath.Join(dir, "upper"), Work: work}}}, `
import os
os.chdir("/a/b/shared")
open("changed", "a").write(" and after"); os.remove("removed"); open("added", "w").write("x"); os.rename("deep/er/moved", "deep/moved"); os.makedirs("new/folder")
print(sorted(os.listdir(".")), open("changed").read(), os.listdir("deep/er"), {os.stat(p).st_uid for p in (".", "changed", "added", "deep")})
print([n for n in os.listdir("/") if n.startswith(".")], [l for l in open("/proc/self/mountinfo") if "/.l" in l.split(" - ")[0]])`)
	f.wantOutput("['added', 'changed', 'deep', 'new', 'of an earlier start'] before and after [] {1000}\n[] []")
	for _, name := range []string{"changed", "removed", "deep/er/moved"} {
		if text, err := os.ReadFile(filepath.Join(lower, name)); string(text) != "before" {
			t.Errorf("%s of the shared folder: %q, %v", name, text, err)
		}
	}
	for _, name := range []string{"changed", "added", "removed", "new/folder"} {
		wantOwner(t, filepath.Join(dir, "upper", name), 0)
	}
	if err := RemoveLayer(filepath.Join(dir, "upper")); err != nil {
		t.Error(err)
	}
}

// TestUsersAreApart attacks the processes of a sandbox as the user of another one, outside of all sandboxes. The kernel refuses by uid
// what namespaces alone would hide.
func TestUsersAreApart(t *testing.T) {
	requireUsers(t)
	const wait = `
import os
os.write(3, b"ready"); os.read(3, 1)`
	a, b := start(t, Spec{User: userA}, wait), start(t, Spec{User: userB}, wait)
	for _, f := range []*fixture{a, b} {
		if _, err := f.channel.Read(make([]byte, 8)); err != nil {
			t.Fatal(err, f.out.String())
		}
	}
	runner, err := b.HostPID(t.Context(), b.RunnerPID())
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"init": b.Cmd.Process.Pid, "the interpreter": runner} {
		out, _ := runFakeAs(t, userA, "attack a process", fmt.Sprint(pid))
		if want := "signal EPERM, environ EACCES, mem EACCES, root EACCES, trace EPERM"; out != want {
			t.Errorf("another user's attempts at %s: %s, want %s", name, out, want)
		}
	}
	if out, _ := runFakeAs(t, userB, "attack a process", fmt.Sprint(runner)); !strings.HasPrefix(out, "signal ok") {
		t.Errorf("the same user's attempts: %s, want success of the signal", out) // or the test would prove nothing
	}
}

// attackProcess tries what the owner of a process may do, and prints the results.
func attackProcess(pid int) string {
	result := func(err error) string {
		if err == nil {
			return "ok"
		}
		return unix.ErrnoName(err.(syscall.Errno))
	}
	open := func(name string) string {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/%s", pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return result(err)
	}
	signal, trace := unix.Kill(pid, 0), unix.PtraceSeize(pid)
	return fmt.Sprintf("signal %s, environ %s, mem %s, root %s, trace %s", result(signal), open("environ"), open("mem"), open("root/etc"), result(trace))
}

// TestUserMountsDoNotPropagate runs where the mounts of the machine are shared, as systemd makes them. Neither side's mounts
// appear on the other.
func TestUserMountsDoNotPropagate(t *testing.T) {
	requireUsers(t)
	if out, state := runFake(t, "shared mounts", t.TempDir()); out != "ok" || !state.Success() {
		t.Errorf("%s, %v", out, state)
	}
}

func init() {
	fakes["attack a process"] = func() {
		pid, _ := strconv.Atoi(os.Args[1])
		fmt.Print(attackProcess(pid))
	}
	fakes["shared mounts"] = func() {
		runtime.LockOSThread() // its namespace of mounts
		err := makeSharedMount(os.Args[1])
		if err == nil {
			err = runOnSharedMount(os.Args[1])
		}
		if err != nil {
			fmt.Print(err)
			os.Exit(1)
		}
		fmt.Print("ok")
	}
}

// makeSharedMount makes dir a shared mount in a mount namespace of this thread.
func makeSharedMount(dir string) error {
	for _, step := range []func() error{
		func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") },
		func() error { return unix.Mount("", dir, "", unix.MS_SHARED, "") },
		func() error { return os.Mkdir(filepath.Join(dir, "hidden"), 0o755) },
		func() error { return os.Mkdir(filepath.Join(dir, "late"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(dir, "hidden", "seen"), nil, 0o644) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// runOnSharedMount starts a sandbox that mounts something below dir, and then mounts something there on the machine.
func runOnSharedMount(dir string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	mounts := append(systemMounts(), Mount{Kind: ReadOnly, Source: dir, Target: "/shared"}, Mount{Kind: Empty, Target: "/shared/hidden"})
	s, err := New(Spec{User: userA, Mounts: mounts, Dir: "/", Argv: []string{"/bin/sh", "-c", "echo ready; read x; echo; ls /shared/late; echo end"}, Env: []string{"PATH=/usr/bin:/bin"}}, null)
	if err != nil {
		return err
	}
	defer s.Close()
	input, err := s.Cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := s.Cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.Cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = s.Cmd.Process.Kill(); _ = s.Cmd.Wait() }()
	if _, err := s.Begin(); err != nil {
		return err
	}
	output := bufio.NewReader(stdout)
	if line, err := output.ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("%q, %w", line, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "hidden", "seen")); err != nil {
		return fmt.Errorf("a mount of the sandbox is on the machine: %w", err)
	}
	late := filepath.Join(dir, "late")
	if err := unix.Mount("tmpfs", late, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(late, "later"), nil, 0o644); err != nil {
		return err
	}
	input.Close()
	if rest, err := io.ReadAll(output); err != nil || string(rest) != "\nend\n" {
		return fmt.Errorf("a later mount of the machine is in the sandbox: %q, %v", rest, err)
	}
	return nil
}

// TestProbeUser checks the probe, and that it reports a user that this process cannot have.
func TestProbeUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if probe, err := ProbeUser(t.TempDir(), userA); err != nil || probe.Err == nil {
			t.Errorf("without root: %+v, %v", probe, err)
		}
	}
	requireUsers(t)
	dir := t.TempDir()
	if probe, err := ProbeUser(dir, userA); err != nil || probe.Err != nil || !probe.Overlay {
		t.Errorf("%+v, %v", probe, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v remain", left)
	}
	t.Setenv("SPACEHOST_DISABLE", "userns")
	if probe, err := ProbeUser(dir, userA); err != nil || probe.Err == nil {
		t.Errorf("disabled: %+v, %v", probe, err)
	}
}
