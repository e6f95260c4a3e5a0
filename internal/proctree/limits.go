package proctree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits bound the resources of one start of a Space. A field that is 0 sets no limit.
type Limits struct {
	Memory    int64   // bytes, without swap where a cgroup enforces it
	Processes int     // processes and threads
	CPU       float64 // cores
}

// limitControllers are the controllers that Limits need (Documentation/admin-guide/cgroup-v2.rst).
var limitControllers = []string{"memory", "pids", "cpu"}

const (
	cpuPeriod = 100_000 // microseconds; the kernel's default
	// cpuWeight is the share of a Space with a CPU limit beside the host's 100. It equals the share of Nice: the
	// scheduler weighs nice 5 with 335 and nice 0 with 1024.
	cpuWeight = 33
	// Nice is the priority of a Space with a CPU limit that no cgroup enforces.
	Nice = 5
)

// cgroupFile is a file of a cgroup with the value of a limit.
type cgroupFile struct {
	name, value string
	optional    bool // the kernel may lack it
}

// files returns the files of one controller; none if no limit needs it.
func (l Limits) files(controller string) []cgroupFile {
	switch {
	case controller == "memory" && l.Memory > 0:
		return []cgroupFile{
			{name: "memory.max", value: strconv.FormatInt(l.Memory, 10)},
			{name: "memory.swap.max", value: "0", optional: true}, // absent without swap accounting
			{name: "memory.oom.group", value: "1"},                // a Space without one of its processes is of no use
		}
	case controller == "pids" && l.Processes > 0:
		return []cgroupFile{{name: "pids.max", value: strconv.Itoa(l.Processes)}}
	case controller == "cpu" && l.CPU > 0:
		return []cgroupFile{
			{name: "cpu.max", value: fmt.Sprintf("%d %d", max(1000, int64(l.CPU*cpuPeriod)), cpuPeriod)},
			{name: "cpu.weight", value: strconv.Itoa(cpuWeight)},
		}
	}
	return nil
}

// without returns the limits except that of one controller.
func (l Limits) without(controller string) Limits {
	switch controller {
	case "memory":
		l.Memory = 0
	case "pids":
		l.Processes = 0
	case "cpu":
		l.CPU = 0
	}
	return l
}

// Unenforced returns the limits that cgroups of this machine cannot enforce.
func (c *Cgroups) Unenforced(l Limits) Limits {
	if c == nil {
		return l
	}
	for _, controller := range c.controllers {
		l = l.without(controller)
	}
	return l
}

// Limit sets limits on the cgroup of a start, which Begin has returned. It returns the limits that are not in force, and
// why the kernel refused some of them.
func (c *Cgroups) Limit(dir string, l Limits) (rest Limits, err error) {
	rest = l
	for _, controller := range c.controllers {
		refused := writeFiles(dir, l.files(controller))
		if refused == nil {
			rest = rest.without(controller)
		}
		err = errors.Join(err, refused)
	}
	return rest, err
}

func writeFiles(dir string, files []cgroupFile) error {
	for _, f := range files {
		err := writeExisting(filepath.Join(dir, f.name), f.value)
		if err != nil && (!f.optional || !errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("set %s to %s: %w", f.name, f.value, err)
		}
	}
	return nil
}

// hostCgroup is the cgroup below Base for this process. Its name differs from those of Spaces.
const hostCgroup = "host"

// writeExisting writes a file that the kernel has made. A file that is missing stays missing. It may block: the kernel reclaims memory
// above a new limit first.
func writeExisting(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// delegate puts the given controllers in force for the cgroups below Base, as far as the kernel allows, and records
// them.
//
// A cgroup that contains processes cannot delegate controllers (cgroup-v2.rst, "No Internal Process Constraint").
// Therefore this process moves into a cgroup of its own if it is the only one in Base, as in a unit or scope of systemd
// with Delegate=yes.
func (c *Cgroups) delegate(controllers []string) error {
	available := c.words("cgroup.controllers")
	var refused error
	for _, name := range controllers {
		if !slices.Contains(available, name) {
			continue
		}
		err := c.enable(name)
		if errors.Is(err, unix.EBUSY) && c.isAlone() {
			if err = c.moveHost(); err == nil {
				err = c.enable(name)
			}
		}
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("delegate controller %s of %s: %w", name, c.Base, err))
			continue
		}
		c.controllers = append(c.controllers, name)
	}
	return refused
}

func (c *Cgroups) enable(controller string) error {
	if slices.Contains(c.words("cgroup.subtree_control"), controller) {
		return nil
	}
	return writeExisting(filepath.Join(c.Base, "cgroup.subtree_control"), "+"+controller)
}

// words returns the words of a file of Base.
func (c *Cgroups) words(name string) []string {
	text, _ := os.ReadFile(filepath.Join(c.Base, name)) // a missing file lists nothing
	return strings.Fields(string(text))
}

// isAlone reports whether this process is the only one in Base.
func (c *Cgroups) isAlone() bool {
	return slices.Equal(c.words("cgroup.procs"), []string{strconv.Itoa(os.Getpid())})
}

func (c *Cgroups) moveHost() error {
	own := filepath.Join(c.Base, hostCgroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return enter(own, os.Getpid())
}

// SetNice lowers the priority of a process that has just been started, and of what it starts. Its threads have
// priorities of their own, so threads are searched until no new one is found. Between sessions, the kernel compares the
// priorities of sessions only (sched(7), autogroup), so that of the process's session is lowered too.
func (p Process) SetNice(nice int) error {
	_ = writeExisting(fmt.Sprintf("/proc/%d/autogroup", p.PID), strconv.Itoa(nice)) // absent without autogroups
	for done := map[string]bool{}; ; {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		before := len(done)
		for _, thread := range threads {
			id, _ := strconv.Atoi(thread.Name()) // a number, by the kernel
			if done[thread.Name()] {
				continue
			}
			done[thread.Name()] = true
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set priority of pid %d to nice %d: %w", p.PID, nice, err)
			}
		}
		if len(done) == before {
			return nil
		}
	}
}
