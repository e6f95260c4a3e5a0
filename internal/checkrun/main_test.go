package checkrun

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
	"spacehost/internal/check"
	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	os.Exit(m.Run())
}

const testGradio = "6.31.0"

// testPython and newerPython return an interpreter with gradio and a release of spaces, which package build makes once for all
// test runs.
var (
	testPython  = sync.OnceValues(func() (string, error) { return buildPython("") })
	newerPython = sync.OnceValues(func() (string, error) { return buildPython(newerSpaces) })
)

// newerSpaces is the pre-release that the tests of cmd/spacehost run with too.
const newerSpaces = "spaces==0.52.0.dev3 --hash=sha256:cc837ebbc3689277b00f4d098ce7962a17490b9b1efbb503e7fb495fae57f62c\n"

func buildPython(requirements string) (string, error) {
	cache, err := buildtest.Cache()
	if err != nil {
		return "", err
	}
	bare, err := os.MkdirTemp("", "bare-space-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(bare)
	if requirements != "" { // first, too: an installer keeps an installed release that meets the requirements
		for _, name := range []string{"pre-requirements.txt", "requirements.txt"} {
			if err := os.WriteFile(filepath.Join(bare, name), []byte(requirements), 0o600); err != nil {
				return "", err
			}
		}
	}
	builder := build.New(build.Config{Dir: filepath.Join(cache, "environments")})
	env, err := builder.Build(context.Background(), build.Spec{Gradio: testGradio, Dir: bare})
	if err != nil {
		return "", err
	}
	return env.Python, nil
}

// writeSpace makes a Space. more are lines of its front matter.
func writeSpace(t *testing.T, app, more string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "written")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	readme := fmt.Sprintf("---\nsdk: gradio\nsdk_version: %s\n%s---\n", testGradio, more)
	for name, text := range map[string]string{"README.md": readme, "app.py": app} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// copied returns a copy of a Space, which may write to its folder.
func copied(t *testing.T, space string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), filepath.Base(space))
	if err := os.CopyFS(dir, os.DirFS(space)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run performs the stages on a Space with a state folder of its own, which must be empty of checks afterwards.
func run(t *testing.T, o Options) (report check.Report, err error) {
	t.Helper()
	err = runOn(t, o, &report)
	return report, err
}

// runOn adds to the report of stage read.
func runOn(t *testing.T, o Options, report *check.Report) (err error) {
	t.Helper()
	if o.Python == "" {
		if o.Python, err = testPython(); err != nil {
			t.Fatal(err)
		}
	}
	if o.State, err = os.MkdirTemp("", "check-test-"); err != nil { // short: it holds a socket
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(o.State) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err = Run(ctx, o, report)
	if left, _ := filepath.Glob(filepath.Join(o.State, "check-*")); len(left) > 0 {
		t.Errorf("folders of the check are left: %v", left)
	}
	if left := processesNaming(o.State); len(left) > 0 {
		t.Errorf("processes of the check are left: %v", left)
	}
	return err
}

// processesNaming returns the processes whose environment names a folder.
func processesNaming(dir string) (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range all {
		if data, err := os.ReadFile(path); err == nil && containsBytes(data, dir) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}
