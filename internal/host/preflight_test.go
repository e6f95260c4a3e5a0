package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"spacehost/internal/config"
	"spacehost/migrations"
)

// preflightOf returns the problems of a host with one Space.
func preflightOf(t *testing.T, state, console, python string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab.yaml")
	text := labOf("", "- {folder: "+writeBuildSpace(t, nil)+", name: one, address: '127.0.0.1:0'}\n")
	if python != "" {
		text = strings.Replace(text, "name: one,", "name: one, python: "+python+",", 1)
	}
	writeFile(t, file, strings.Replace(text, "console: 127.0.0.1:0", "console: "+console, 1))
	checked, err := config.Check(file, state)
	if err != nil {
		t.Fatal(err)
	}
	err = Preflight(t.Context(), checked)
	if err == nil {
		return nil
	}
	problems, ok := errors.AsType[*MachineError](err)
	if !ok {
		t.Fatal(err)
	}
	return problems.Problems
}

func TestPreflightOfAddresses(t *testing.T) {
	state := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	used := listener.Addr().String()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s is in use by %s (pid %d): stop it, or choose another address with `console` in ", used, strings.TrimSpace(string(comm)), os.Getpid())
	if got := preflightOf(t, state, used, ""); len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("got %q, want %s...", got, want)
	}
	if got := preflightOf(t, state, "127.0.0.1:0\ncluster: {listen: \""+used+"\"}", ""); len(got) != 1 || !strings.HasPrefix(got[0], strings.Replace(want, "console", "cluster.listen", 1)) {
		t.Errorf("the address for agents: got %q", got)
	}

	// A host of this state folder is about to be reloaded, or replaced.
	running, err := OpenState(state)
	if err != nil {
		t.Fatal(err)
	}
	if got := preflightOf(t, state, used, ""); len(got) > 0 {
		t.Errorf("beside the host that holds the address: %q, want no problem", got)
	}
	if got := preflightOf(t, t.TempDir(), used, ""); len(got) != 1 {
		t.Errorf("with another state folder: %q, want one problem", got)
	}
	running.Close()
	if got := preflightOf(t, state, used, ""); len(got) != 1 {
		t.Errorf("after the host has ended: %q, want one problem", got)
	}
}

func TestPreflightOfStateFolder(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "a", "b")
	if got := preflightOf(t, missing, "127.0.0.1:0", ""); len(got) > 0 {
		t.Errorf("a folder that can be created: %q, want no problem", got)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v, want nothing created", left)
	}
	writeFile(t, filepath.Join(dir, "file"), "")
	checkProblem(t, preflightOf(t, filepath.Join(dir, "file", "state"), "127.0.0.1:0", ""), "not a directory; choose another with --state or the key `state`")
	checkProblem(t, preflightOf(t, filepath.Join(dir, "file"), "127.0.0.1:0", ""), "file is not a folder; choose another with --state or the key `state`")

	newer := t.TempDir()
	db, err := migrations.Open(t.Context(), filepath.Join(newer, "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	if got := preflightOf(t, newer, "127.0.0.1:0", ""); len(got) > 0 {
		t.Errorf("beside an open database: %q, want no problem", got)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	checkProblem(t, preflightOf(t, newer, "127.0.0.1:0", ""), "run the newer spacehost, or restore the backup from before the upgrade")
	if left, _ := os.ReadDir(newer); len(left) != 1 {
		t.Errorf("left %v, want the database alone", left)
	}
}

func TestPreflightOfInterpreter(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("python3", "-m", "venv", "--without-pip", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	python := filepath.Join(dir, "bin", "python")
	checkProblem(t, preflightOf(t, t.TempDir(), "127.0.0.1:0", python), "python of one: "+python+" has no gradio and no spaces; install them with ")

	packages, err := filepath.Glob(filepath.Join(dir, "lib", "*", "site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatal(packages, err)
	}
	for name, code := range map[string]string{"gradio": "from huggingface_hub_of_old import HfFolder", "spaces": ""} {
		writeFile(t, filepath.Join(packages[0], name, "__init__.py"), code)
		writeFile(t, filepath.Join(packages[0], name+"-99.0.0.dist-info", "METADATA"), "Metadata-Version: 2.1\nName: "+name+"\nVersion: 99.0.0\n")
	}
	checkProblem(t, preflightOf(t, t.TempDir(), "127.0.0.1:0", python), "cannot import gradio and spaces: ModuleNotFoundError: No module named 'huggingface_hub_of_old'")
	writeFile(t, filepath.Join(packages[0], "gradio", "__init__.py"), "")
	if got := preflightOf(t, t.TempDir(), "127.0.0.1:0", python); !reflect.DeepEqual(got, []string(nil)) {
		t.Errorf("with both packages: %q, want no problem", got)
	}
}

func checkProblem(t *testing.T, got []string, want string) {
	t.Helper()
	if len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("problems %q, want one with %q", got, want)
	}
}
