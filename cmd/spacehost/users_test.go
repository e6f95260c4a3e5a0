package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/feature/featuretest"
)

const firstUID = 262000

// userLab is a `spacehost serve` whose Spaces have a uid of their own.
type userLab struct {
	*product
	files string // folder with the files of the test
}

// serveUsers starts one copy of the Space testdata/spaces/scripts per name, at level users.
func serveUsers(t *testing.T, state string, names ...string) *userLab {
	t.Helper()
	requireRoot(t)
	requireOwnMachine(t, "`isolation: users` is refused with `on`")
	files := filepath.Join(state, "files")
	var spaces strings.Builder
	for _, name := range names {
		if err := os.CopyFS(filepath.Join(files, name), os.DirFS("testdata/spaces/scripts")); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		fmt.Fprintf(&spaces, "- {folder: %s, address: ':0', python: %s}\n", filepath.Join(files, name), environment(t))
	}
	file := filepath.Join(files, "lab.yaml")
	text := fmt.Sprintf("isolation: users\nusers: %d-%d\ngpus: {machine: mock:2xH200}\nquota: 2026-04\nconsole: ':0'\nspaces:\n%s", firstUID, firstUID+2, &spaces)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, filepath.Join(state, "state"), "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	for _, space := range p.Spaces {
		if space.Level != "users" || space.Stage != "RUNNING" {
			t.Fatalf("Space %s is %s at level %s", space.Name, space.Stage, space.Level)
		}
	}
	return &userLab{p, files}
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		featuretest.Missing(t, "this user is not root, and only root can run Spaces as other users")
	}
}

// eval lets a Space run a script and decodes its result.
func eval[T any](c *client, api, script string) (result T) {
	c.t.Helper()
	text := c.ok(api, script)
	if err := json.Unmarshal([]byte(text), &result); err != nil {
		c.t.Fatalf("%v in %s", err, text)
	}
	return result
}

// uids returns the uids of all processes of Spaces and of their inits, by pid.
func (l *userLab) uids() map[int]int {
	all, parents := map[int]int{}, append(l.agents(), l.cmd.Process.Pid)
	for pid := range processesOf(l.State) {
		for ; pid > 1 && !slices.Contains(parents, pid); pid = parentOf(pid) { // -1: it has exited
			all[pid] = uidOf(pid)
		}
	}
	return all
}

func statusNumber(pid int, field string) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			number, _ := strconv.Atoi(strings.Fields(value)[0])
			return number
		}
	}
	return -1
}

func uidOf(pid int) int    { return statusNumber(pid, "Uid") }
func parentOf(pid int) int { return statusNumber(pid, "PPid") }

// TestSpacesOfUsers runs two Spaces with uids of their own: their processes, their files, and a call with a GPU.
func TestSpacesOfUsers(t *testing.T) {
	l := serveUsers(t, t.TempDir(), "one", "two")
	one, two := l.clientAt(l.Spaces[0].URL), l.clientAt(l.Spaces[1].URL)

	for _, c := range []*client{one, two} {
		if got := eval[[]int](c, "/run", "import os; result = [os.getuid(), os.getgid(), len(os.getgroups())]"); !slices.Equal(got, []int{1000, 1000, 0}) {
			t.Errorf("uid, gid and number of groups inside: %v", got)
		}
		if got := eval[[]any](c, "/run_on_gpu", "import os; result = [os.getuid(), os.environ['CUDA_VISIBLE_DEVICES']]"); got[0] != 1000.0 || !strings.HasPrefix(fmt.Sprint(got[1]), "GPU-") {
			t.Errorf("in a GPU worker: %v", got)
		}
	}
	found := map[int]int{}
	for _, uid := range l.uids() {
		found[uid]++
	}
	if len(found) != 2 || found[firstUID] < 3 || found[firstUID+1] < 3 {
		t.Errorf("processes by uid: %v, want init, runner and worker of each Space under its own", found)
	}
	if strings.Contains(l.text(), "runs as root") {
		t.Errorf("the host warns of Spaces that are root:\n%s", l.text())
	}
	l.wantFileFlow(one)
	l.wantLayers(one)
	l.wantApart(one, two)
	l.wantRootsFiles()
}

// wantFileFlow sends a file through a Space: an upload that the host writes, and a result that the host reads.
func (l *userLab) wantFileFlow(c *client) {
	l.t.Helper()
	upload := filepath.Join(l.files, "upload.txt")
	if err := os.WriteFile(upload, []byte("twice "), 0o600); err != nil {
		l.t.Fatal(err)
	}
	result := c.ok("/double", map[string]any{"path": upload, "meta": map[string]string{"_type": "gradio.FileData"}})
	if text, err := os.ReadFile(result); string(text) != "twice twice " {
		l.t.Errorf("the file of the result is %q, %v", text, err)
	}
}

// wantLayers writes where a Space may, and checks the folders outside.
func (l *userLab) wantLayers(c *client) {
	l.t.Helper()
	written := eval[[]string](c, "/run", `
import os, pathlib, sys, tempfile
import gradio
result = []
for folder in (os.getcwd(), os.environ["HOME"], tempfile.gettempdir(), os.environ["HF_HOME"], os.path.dirname(gradio.__file__), "/dev/shm"):
    path = pathlib.Path(folder, "written by a Space")
    path.write_text("x")
    result.append(str(path))
open("app.py", "a").write("# changed")
open("/dev/stdout", "w").write("through the path of the output\n")`)
	for i, path := range written {
		if _, err := os.Stat(path); err == nil != (i == 1) { // only HOME is the same folder outside
			l.t.Errorf("outside, %s: %v", path, err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(l.files, "one", "app.py")); err != nil || strings.Contains(string(text), "# changed") {
		l.t.Errorf("a Space has changed its folder outside of its layer (%v)", err)
	}
	if !strings.Contains(l.text(), "through the path of the output") {
		l.t.Errorf("what a Space wrote to /dev/stdout is not on the screen:\n%s", l.text())
	}
}

// wantApart lets each Space look for the other's processes and files.
func (l *userLab) wantApart(one, two *client) {
	l.t.Helper()
	const script = `
import os
def attempt(f):
    try: return f()
    except OSError as e: return type(e).__name__
home = os.environ["HOME"]
result = [len([p for p in os.listdir("/proc") if p.isdigit()]), attempt(lambda: os.listdir(home.replace("/one/", "/two/"))), attempt(lambda: os.kill(%d, 0)), attempt(lambda: open("/etc/shadow").read())]`
	theirs := eval[int](two, "/run", "import os; result = os.getpid()")
	outer := 0
	for pid, uid := range l.uids() {
		if uid == firstUID+1 {
			outer = max(outer, pid)
		}
	}
	got := eval[[]any](one, "/run", fmt.Sprintf(script, outer))
	if got[0].(float64) > 6 || got[1] != "FileNotFoundError" || got[2] != "ProcessLookupError" || got[3] != "FileNotFoundError" {
		l.t.Errorf("a Space sees of the other (pid %d, inside %d): %v", outer, theirs, got)
	}
}

// wantRootsFiles checks that every file in the state folder belongs to root.
func (l *userLab) wantRootsFiles() {
	l.t.Helper()
	number := 0
	err := filepath.WalkDir(l.State, func(path string, _ fs.DirEntry, err error) error {
		var info syscall.Stat_t
		if err != nil || syscall.Lstat(path, &info) != nil {
			return err // it may be gone
		}
		number++
		if info.Uid != 0 || info.Gid != 0 {
			l.t.Errorf("%s belongs to %d:%d", path, info.Uid, info.Gid)
		}
		return nil
	})
	if err != nil || number < 20 {
		l.t.Errorf("%d files, %v", number, err)
	}
}

// TestUIDsAreKept restarts a host with other Spaces, and kills it.
func TestUIDsAreKept(t *testing.T) {
	state := t.TempDir()
	l := serveUsers(t, state, "one", "two")
	l.clientAt(l.Spaces[0].URL).ok("/run", `import os; open(os.environ["HOME"] + "/kept", "w").write("x"); result = 1`)
	l.kill()
	if agentKey() == "" { // an agent keeps them
		eventually(t, "no process of a Space remains after SIGKILL of the host", patience, func() bool { return len(l.uids()) == 0 })
	}

	l = serveUsers(t, state, "three", "two", "one")
	want := map[string]int{"one": firstUID, "two": firstUID + 1, "three": firstUID + 2}
	for _, space := range l.health().Spaces {
		if uid := uidOf(space.PID); uid != want[space.Name] {
			t.Errorf("%s runs with uid %d, want %d", space.Name, uid, want[space.Name])
		}
	}
	if got := eval[string](l.clientAt(l.Spaces[2].URL), "/run", `import os; result = open(os.environ["HOME"] + "/kept").read()`); got != "x" {
		t.Errorf("a file of an earlier start: %q", got)
	}
}
