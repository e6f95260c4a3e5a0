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

// cgroups is where this host may make cgroups of version 2. Each start of a Space gets one, with one in it for the
// app and one for each GPU worker. Whatever is started in a cgroup stays in it, even if it leaves its parent, its
// group, its session and its environment, and cgroup.kill ends all of it at once (Linux 5.14, cgroup-v2.rst).
//
// nil: this machine lets us make none.
type Cgroups struct{ Base string }

// OpenCgroups tries it out, as root or where the cgroup was delegated to us.
func OpenCgroups() (*Cgroups, error) {
	base, ok := (&OOMWatch{}).cgroupOf(os.Getpid(), "")
	if !ok {
		return nil, errors.New("this process stands in no cgroup of version 2")
	}
	c := &Cgroups{base}
	if err := c.try(); err != nil {
		return nil, err
	}
	c.sweep()
	return c, nil
}

// try does what begin does, with a process of no consequence: a move may be refused where a cgroup can be made.
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
	child := exec.Command("/bin/sh", "-c", "read end") // it ends with us, too, since the pipe does
	if _, err := child.StdinPipe(); err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return nil // no shell here: whether it may be moved is seen at the first start of a Space
	}
	defer func() {
		_ = child.Process.Kill() // it is not reaped yet
		_ = child.Wait()         // by our signal
	}()
	return enter(app, child.Process.Pid)
}

// sweep removes what a host has left that died before it wrote down what it had started. One that is a minute old and
// empty is of no start that is still being made.
func (c *Cgroups) sweep() {
	left, _ := filepath.Glob(c.of("*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Minute && isEmpty(dir) {
			_ = removeCgroup(dir) // somebody else's stays
		}
	}
}

// of is the folder of a start of a Space. The name tells it after a crash of the host.
func (c *Cgroups) of(instance string) string { return filepath.Join(c.Base, "spacehost-"+instance) }

// begin makes the cgroups of a start and puts its first process into that of the app. Its folder comes back.
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

// confine moves a worker into a cgroup of its own, below that of its Space. What it started before stays outside.
func confine(dir string, worker Process) error {
	own := filepath.Join(dir, workerCgroup(worker))
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return enter(own, worker.PID)
}

func enter(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func workerCgroup(worker Process) string { return fmt.Sprintf("gpu-%d-%d", worker.PID, worker.Start) }

// ofWorker finds the cgroup of a worker, also of one that an earlier host has confined; "" if it has none.
func (c *Cgroups) ofWorker(worker Process) string {
	if c == nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(c.Base, "spacehost-*", workerCgroup(worker))) // the pattern is well formed
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// endCgroup kills whoever is in a cgroup or below it, waits until that is nobody, and removes it.
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
			return fmt.Errorf("they outlive SIGKILL in %s", dir)
		}
	}
}

// isEmpty: zombies do not count.
func isEmpty(dir string) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.events")) // one that is gone is empty
	return !strings.Contains(string(text), "populated 1")
}

// removeCgroup takes those below with it.
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

// cgroupHolds says whether a process stands in that very cgroup.
func cgroupHolds(dir string, pid int) bool {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // one that is gone holds nobody
	return slices.Contains(strings.Fields(string(text)), strconv.Itoa(pid))
}
