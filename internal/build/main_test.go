package build

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"spacehost/internal/build/buildtest"
)

// TestMain adds local wheels named gradio and spaces to the package index, empty except for their versions. Most
// tests thus run the real installers without a hundred megabytes of Gradio.
func TestMain(m *testing.M) {
	if dir := os.Getenv(hostIn); dir != "" {
		log.Fatal(runAsHost(dir))
	}
	wheels, err := os.MkdirTemp("", "wheels")
	if err != nil {
		log.Fatal(err)
	}
	for _, w := range []struct{ name, version, code string }{
		{"gradio", "99.1.0", ""}, {"gradio", "99.2.0", ""}, {"spaces", "99.0.0", ""},
		{"gradio", "99.3.0", "from huggingface_hub_of_old import HfFolder"},
	} {
		if err := buildtest.Wheel(wheels, w.name, w.version, w.code); err != nil {
			log.Fatal(err)
		}
	}
	os.Setenv("UV_FIND_LINKS", wheels)
	os.Setenv("PIP_FIND_LINKS", wheels)
	os.Setenv("PIP_NO_COMPILE", "1") // half of pip's time
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(wheels)
		os.Exit(code)
	}))
}

// cache is the folder that test runs share, for the uv that is installed once.
func cache(t *testing.T) string {
	t.Helper()
	dir, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// stateDir returns a new Config.Dir with the shared tools in it.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, tools := t.TempDir(), filepath.Join(cache(t), "tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tools, filepath.Join(dir, "tools")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pipDir returns a Config.Dir in which uv cannot be installed.
func pipDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"tools": "a file"})
	return dir
}

// spaceDir returns a Space's folder.
func spaceDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	writeFiles(t, dir, files)
	return dir
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func build(t *testing.T, b *Builder, spec Spec, rebuild bool) *Environment {
	t.Helper()
	if rebuild {
		spec.BuiltAfter = time.Now()
	}
	env, err := b.Build(t.Context(), spec)
	if err != nil {
		t.Fatalf("Build(%+v) = %v\n%s", spec, err, tailOf(err))
	}
	return env
}

func tailOf(err error) []string {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return nil
	}
	return e.Tail
}

// steps records progress.
type steps struct {
	mu  sync.Mutex
	all []Step
}

func (s *steps) add(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, step)
}

func (s *steps) texts(state StepState) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, step := range s.all {
		if step.State == state {
			all = append(all, fmt.Sprintf("%d/%d %s", step.Index, step.Total, step.Text))
		}
	}
	return all
}

// eventually waits for an action of another process.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("timed out waiting for: %s", what)
		case <-tick.C:
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
