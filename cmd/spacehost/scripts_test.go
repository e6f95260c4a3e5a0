package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/host"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the scenarios of testdata/script. They check exact messages and exit codes, as a user reads them.
func TestScripts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			bin := filepath.Join(e.WorkDir, "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				return err
			}
			for key, value := range scriptVars(t, e, bin) {
				e.Setenv(key, value)
			}
			e.Defer(func() { endBackground(t, e.WorkDir) })
			return os.Symlink(self, filepath.Join(bin, "spacehost"))
		},
		Condition: func(word string) (bool, error) {
			if word != "driver" {
				return false, fmt.Errorf("unknown condition %q", word)
			}
			_, err := os.Stat("/proc/driver/nvidia/version")
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "await": await, "noprocesses": noProcesses,
		},
	})
}

// endBackground ends the background process of a failed script. Scripts write its pid to the file `pid`.
func endBackground(t *testing.T, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return // the script started no process
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)) // "" once it has exited
	if err != nil || cwd != dir {
		return
	}
	t.Logf("ending process %d, left by the script in %s", pid, dir)
	_ = syscall.Kill(pid, syscall.SIGINT) // it may have exited
}

func scriptVars(t *testing.T, e *testscript.Env, bin string) map[string]string {
	home := filepath.Join(e.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{
		beSpacehost: "1", "SPACEHOST_ENVIRONMENTS": environments(t), "HOME": home,
		"PATH": bin + string(os.PathListSeparator) + os.Getenv("PATH"), "PYTHON": environment(t),
	}
	for _, pair := range os.Environ() { // for example the proxy settings for the package index
		for i := range pair {
			if pair[i] == '=' {
				if host.IsPassed(pair[:i]) && pair[:i] != "PATH" {
					vars[pair[:i]] = pair[i+1:]
				}
				break
			}
		}
	}
	return vars
}

// exits implements `exits CODE COMMAND [ARG...]`: it runs a command and checks its exit code. Its output goes to stdout and stderr
// as with exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want := args[0]; fmt.Sprint(code) != want {
		ts.Fatalf("exit code %d, want %s; stderr:\n%s", code, want, ts.ReadFile("stderr"))
	}
}

// await implements `await FILE TEXT`: it waits until a file that a background command writes contains the text.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	path := ts.MkAbs(args[0])
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		data, _ := os.ReadFile(path) // it may not exist yet
		if strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q is not in %s after %s:\n%s", args[1], args[0], patience, data)
		}
	}
}

// noProcesses implements `noprocesses STATE`: it checks that no process of a Space of this state folder is running.
func noProcesses(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: noprocesses STATE")
	}
	if left := processesOf(ts.MkAbs(args[0])); len(left) > 0 {
		ts.Fatalf("processes of the Space are still running: %v", left)
	}
}
