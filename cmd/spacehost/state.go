package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// state is the host's folder: one host per folder, held by a lock that ends with the process.
type state struct {
	dir  string
	lock *os.File
}

func (s state) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func openState(dir string) (state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return state{}, fmt.Errorf("make state folder: %w; choose another with --state", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return state{}, fmt.Errorf("open state folder: %w; choose another with --state", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := os.ReadFile(lock.Name())
		lock.Close()
		return state{}, fmt.Errorf("another spacehost (pid %s) runs on the state folder %s: stop it, or give this one a folder of its own with --state",
			strings.TrimSpace(string(owner)), dir)
	}
	if err != nil {
		lock.Close()
		return state{}, fmt.Errorf("lock state folder %s: %w; it must be on a file system that can lock", dir, err)
	}
	if err := lock.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(lock, "%d\n", os.Getpid()) // for the sentence above only
	}
	return state{dir, lock}, nil
}

func (s state) close() { s.lock.Close() }

// environments is where environments and tools are kept. $SPACEHOST_ENVIRONMENTS lets several state folders share one.
func (s state) environments() string {
	if shared := os.Getenv("SPACEHOST_ENVIRONMENTS"); shared != "" {
		return shared
	}
	return s.path("environments")
}
