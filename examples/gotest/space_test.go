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
	startTimeout = 8 * time.Minute  // the first start may install gradio
	stopTimeout  = 30 * time.Second // from SIGINT to the exit of the last process
)

// Space is a running Space.
type Space struct {
	URL     string
	Console string // health and the Hub's quota API
	State   string // state folder for `spacehost gpu --state ...`; it contains the log
}

// StartSpace runs the Space in dir until the end of the test, and returns once it answers. args are additional flags
// of `spacehost run`.
func StartSpace(t testing.TB, dir string, args ...string) *Space {
	t.Helper()
	space := &Space{State: t.TempDir()} // the ready line contains the other fields
	flags := []string{"run", dir, "--addr", ":0", "--console-addr", ":0", "--gpus", "mock:1xH200", "--tier", "unlimited", "--ready-json", "--state", space.State}
	if python := os.Getenv("SPACEHOST_TEST_PYTHON"); python != "" {
		flags = append(flags, "--python", python)
	}
	host := exec.Command(binary(t), append(flags, args...)...)
	host.Env = append(os.Environ(), "SPACEHOST_ENVIRONMENTS="+environments(t))
	var stderr bytes.Buffer // read only after the host has exited
	host.Stderr = &stderr
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
		_ = host.Wait() // it exits by our signal, or its stderr contains the reason
	}()
	t.Cleanup(func() {
		stop(t, host, ended)
		if t.Failed() {
			t.Logf("output of spacehost:\n%s", stderr.String())
		}
	})
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("spacehost exited before %s answered: %v", dir, err)
		}
	case <-time.After(startTimeout):
		t.Fatalf("%s does not answer within %s", dir, startTimeout)
	}
	return space
}

// stop stops the Space and its workers, then spacehost.
func stop(t testing.TB, host *exec.Cmd, ended chan struct{}) {
	t.Helper()
	_ = host.Process.Signal(syscall.SIGINT) // it may have exited
	select {
	case <-ended:
	case <-time.After(stopTimeout):
		t.Errorf("spacehost does not exit within %s of SIGINT", stopTimeout)
		_ = host.Process.Kill()
		<-ended
	}
}

// binary returns $SPACEHOST, or builds it from this module.
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

// lookAtSources reads every folder of the module. `go test` repeats an old result ("cached") until a file or folder
// changes that the test has read, and it does not track the files that `go build` reads.
func lookAtSources(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "dist") { // in a worktree .git is a file
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// environments returns the folder in which spacehost creates environments; they are kept between runs.
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
