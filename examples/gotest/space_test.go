package gotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const (
	startup = 8 * time.Minute  // the first start may install gradio
	farWell = 30 * time.Second // from SIGINT to the end of the last process
)

// Space is one that answers.
type Space struct {
	URL     string
	Console string // health and the Hub's quota API
	State   string // for `spacehost gpu --state ...` and its log
}

// StartSpace runs the Space in dir until the end of the test, and returns once it answers. args are further flags of `spacehost run`.
func StartSpace(t testing.TB, dir string, args ...string) *Space {
	t.Helper()
	space := &Space{State: t.TempDir()} // the rest comes with the ready line
	usual := []string{"run", dir, "--addr", ":0", "--console-addr", ":0", "--gpus", "mock:1xH200", "--tier", "unlimited", "--ready-json", "--state", space.State}
	if python := os.Getenv("SPACEHOST_TEST_PYTHON"); python != "" {
		usual = append(usual, "--python", python)
	}
	host := exec.Command(binary(t), append(usual, args...)...)
	host.Env = append(os.Environ(), "SPACEHOST_ENVIRONMENTS="+environments(t))
	var said bytes.Buffer // read only once the host has ended
	host.Stderr = &said
	stdout, err := host.StdoutPipe()
	if err == nil {
		err = host.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		ready <- json.NewDecoder(stdout).Decode(space)
		_ = host.Wait() // it ends by our signal, or has said why
	}()
	t.Cleanup(func() {
		stop(t, host, ended)
		if t.Failed() {
			t.Logf("spacehost said:\n%s", said.String())
		}
	})
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("spacehost ended before %s answered: %v", dir, err)
		}
	case <-time.After(startup):
		t.Fatalf("%s does not answer within %s", dir, startup)
	}
	return space
}

// stop ends the Space and its workers, then spacehost.
func stop(t testing.TB, host *exec.Cmd, ended chan struct{}) {
	t.Helper()
	_ = host.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-ended:
	case <-time.After(farWell):
		t.Errorf("spacehost does not end within %s of SIGINT", farWell)
		_ = host.Process.Kill()
		<-ended
	}
}

// binary is $SPACEHOST, or built from this module.
func binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("SPACEHOST"); path != "" {
		return path
	}
	lookAtSources(t)
	path := filepath.Join(t.TempDir(), "spacehost")
	if out, err := exec.Command("go", "build", "-o", path, "spacehost/cmd/spacehost").CombinedOutput(); err != nil {
		t.Fatalf("build spacehost: %v\n%s", err, out)
	}
	return path
}

// lookAtSources lists every folder of the module. `go test` repeats an old result ("cached") until something changes that the test looked
// at, and it does not see what `go build` looks at.
func lookAtSources(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == ".git" { // in a worktree it is a file
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) { // gone meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// environments is the folder where spacehost makes environments; they are kept between runs.
func environments(t testing.TB) string {
	t.Helper()
	cache := os.Getenv("SPACEHOST_TEST_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no cache folder: set SPACEHOST_TEST_CACHE: %v", err)
		}
		cache = filepath.Join(base, "spacehost-test")
	}
	return filepath.Join(cache, "environments")
}
