// Package proctreetest supports tests that start real processes: a folder that marks them, a check that none is left
// running, and waits with a deadline.
//
// The tests of internal/proctree and worker use it. Main replaces their TestMain; TempDir, Eventually and Within serve
// the single test.
package proctreetest

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

// Root contains the run folders of all tests of the package. A process with this path in its environment was started
// by one of them. Main sets it.
var Root string

// Main runs the tests of a package, and fails if a process or a goroutine is left running. It never returns.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "spacehost-test-")
	if err != nil {
		panic(err)
	}
	Root = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for _, left := range leftovers() {
			fmt.Fprintln(os.Stderr, "left running:", left)
			code = 1
		}
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// leftovers lists the processes that the tests have left running. A zombie has no environment and is not listed.
func leftovers() (found []string) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return []string{err.Error()}
	}
	for _, folder := range folders {
		environ, err := os.ReadFile(filepath.Join(folder, "environ"))
		if err == nil && filepath.Base(folder) != fmt.Sprint(os.Getpid()) && bytes.Contains(environ, []byte(Root)) {
			command, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
			found = append(found, fmt.Sprint(filepath.Base(folder), " ", strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found
}

// TempDir is like t.TempDir, below Root.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(Root, strings.ReplaceAll(filepath.Base(t.Name()), "*", "")+"-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Patience is the deadline of events that should happen soon. Only a failing test waits that long.
const Patience = 45 * time.Second

// Eventually waits for an observable state.
func Eventually(t testing.TB, what string, state func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(Patience); !state(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}

// Within waits until done is closed or delivers a value.
func Within[T any](t testing.TB, limit time.Duration, what string, done <-chan T) (got T) {
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
