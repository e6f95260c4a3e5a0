package worker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// testRoot holds the run folders of all tests: a process with it in its environment is one of ours.
var testRoot string

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeVariable); mode != "" {
		beFake(mode)
	}
	dir, err := os.MkdirTemp("", "spacehost-worker-")
	if err != nil {
		panic(err)
	}
	testRoot = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for _, left := range leftovers() {
			fmt.Fprintln(os.Stderr, "left running:", left)
			code = 1
		}
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// leftovers are the processes that a test has left behind.
func leftovers() []string {
	var found []string
	all, err := allStats()
	if err != nil {
		return []string{err.Error()}
	}
	for _, s := range all {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.pid))
		if err == nil && s.pid != os.Getpid() && bytes.Contains(environ, []byte(testRoot)) {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.pid))
			found = append(found, fmt.Sprint(s.pid, " ", strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found
}

// tempDir is like t.TempDir, below testRoot.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(testRoot, strings.ReplaceAll(filepath.Base(t.Name()), "*", "")+"-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// patient is the deadline of whatever should happen soon; only a failing test waits that long.
const patient = 20 * time.Second

// eventually waits for an observable state.
func eventually(t testing.TB, what string, state func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patient); !state(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patient, what)
		}
	}
}

// within waits for done to be closed or sent to.
func within[T any](t testing.TB, limit time.Duration, what string, done <-chan T) (got T) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case got = <-done:
	case <-timer.C:
		t.Fatalf("not within %s: %s", limit, what)
	}
	return got
}
