package proctree

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups creates cgroups of version 2 below Base. Each start of a Space gets one cgroup. It contains one cgroup for
// the app and one for each GPU worker.
//
// A process started in a cgroup stays in it, even if it leaves its parent, its process group, its session and its
// environment. cgroup.kill ends all processes of a cgroup at once (Linux 5.14, cgroup-v2.rst).
//
// A nil *Cgroups means that this machine does not allow cgroups.
type Cgroups struct {
	Base string

	controllers []string // of limitControllers, those in force below Base
	all         string   // folder of the cgroup of all starts; "": they are below Base (total.go)
}

// OpenCgroups returns the Cgroups below the cgroup of this process. It fails if a trial fails. The trial succeeds
// for root, and for a user with a delegated cgroup.
func OpenCgroups() (*Cgroups, error) {
	base, ok := (&OOMWatch{}).cgroupOf(os.Getpid(), "")
	if !ok {
		return nil, errors.New("this process is in no cgroup of version 2")
	}
	c := &Cgroups{Base: base}
	if err := c.try(); err != nil {
		return nil, err
	}
	c.sweep()
	return c, nil
}

// try performs the steps of Begin with a dummy process. The kernel can refuse the move even where it allows the
// creation of a cgroup.
func (c *Cgroups) try() (err error) {
	dir := c.of(fmt.Sprintf("probe-%d", os.Getpid()))
	app := filepath.Join(dir, "app")
	defer func() { err = errors.Join(err, removeCgroup(dir)) }()
	if err := os.MkdirAll(app, 0o755); err != nil {
		return err
	}
	if err := unix.Access(filepath.Join(dir, "cgroup.kill"), unix.W_OK); err != nil {
		return fmt.Errorf("cgroup.kill of %s: %w", c.Base, err)
	}
	child := exec.Command("/bin/sh", "-c", "read end") // it exits with this process, which closes the pipe
	if _, err := child.StdinPipe(); err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return nil // no shell on this machine: the first start of a Space shows whether a move is allowed
	}
	defer func() {
		_ = child.Process.Kill() // not reaped yet
		_ = child.Wait()         // its error reports our signal
	}()
	return enter(app, child.Process.Pid)
}

// sweep removes cgroups left by a host that crashed before it recorded the start. A cgroup that is a minute old and
// empty does not belong to a start in progress. The cgroup of all starts of another host stays while that host runs: it is empty
// between two starts.
func (c *Cgroups) sweep() {
	nested, _ := filepath.Glob(filepath.Join(c.Base, allCgroup+"*", "spacehost-*")) // the pattern is well formed
	left, _ := filepath.Glob(c.of("*"))
	for _, dir := range append(nested, left...) {
		if pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), allCgroup)); err == nil && isThere(pid) {
			continue
		}
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Minute && isEmpty(dir) {
			_ = removeCgroup(dir) // a cgroup of another user stays
		}
	}
}

// of returns the folder of a start of a Space. The folder is found by this name after a crash of the host.
func (c *Cgroups) of(instance string) string { return filepath.Join(c.starts(), "spacehost-"+instance) }

// Begin creates the cgroups of a start, moves its first process into the cgroup of the app, and returns the folder.
func (c *Cgroups) Begin(instance string, pid int) (dir string, err error) {
	dir = c.of(instance)
	app := filepath.Join(dir, "app")
	if err := os.MkdirAll(app, 0o755); err != nil {
		return "", errors.Join(err, removeCgroup(dir))
	}
	if err := enter(app, pid); err != nil {
		return "", errors.Join(err, removeCgroup(dir))
	}
	return dir, nil
}

// confine moves a worker into its own cgroup, below the cgroup of its Space. Processes that the worker started
// earlier stay outside.
func confine(dir string, worker Process) error {
	own := filepath.Join(dir, workerCgroup(worker))
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return enter(own, worker.PID)
}

// enter moves a process into a cgroup.
func enter(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func workerCgroup(worker Process) string { return fmt.Sprintf("gpu-%d-%d", worker.PID, worker.Start) }

// ofWorker returns the cgroup of a worker, or "". It also finds a worker that an earlier host confined.
func (c *Cgroups) ofWorker(worker Process) string {
	if c == nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(c.Base, "spacehost-*", workerCgroup(worker))) // the pattern is well formed
	nested, _ := filepath.Glob(filepath.Join(c.Base, allCgroup+"*", "spacehost-*", workerCgroup(worker)))
	if found = append(found, nested...); len(found) == 0 {
		return ""
	}
	return found[0]
}

// endCgroup kills all processes of a cgroup and of the cgroups below it, waits until none is left, and removes it.
func endCgroup(dir string, limit time.Duration) error {
	kill := filepath.Join(dir, "cgroup.kill")
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if err := os.WriteFile(kill, []byte("1"), 0); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if isEmpty(dir) {
			return removeCgroup(dir)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes in %s are still running after SIGKILL", dir)
		}
	}
}

// isEmpty reports whether a cgroup contains no process. Zombies do not count.
func isEmpty(dir string) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.events")) // a removed cgroup is empty
	return !strings.Contains(string(text), "populated 1")
}

// removeCgroup removes a cgroup and the cgroups one level below it.
func removeCgroup(dir string) error {
	below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	for _, file := range below {
		if err := os.Remove(filepath.Dir(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// isMember reports whether a process is a direct member of the cgroup.
func isMember(dir string, pid int) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // a removed cgroup has no members
	return slices.Contains(strings.Fields(string(text)), strconv.Itoa(pid))
}
