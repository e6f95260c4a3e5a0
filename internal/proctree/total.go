package proctree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// allCgroup begins the name of the cgroup that contains those of all starts. Its end is the pid of the host, because two hosts may
// have the same Base.
const allCgroup = "spacehost-all-"

// nest creates the cgroup of all starts, so that they have a common limit. Without it, each start has its cgroup below Base, and
// their sum is not limited by the kernel.
func (c *Cgroups) nest() error {
	all := &Cgroups{Base: filepath.Join(c.Base, allCgroup+strconv.Itoa(os.Getpid()))}
	if err := os.Mkdir(all.Base, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, name := range c.controllers {
		if err := all.enable(name); err != nil {
			return errors.Join(fmt.Errorf("delegate controller %s of %s: %w", name, all.Base, err), removeCgroup(all.Base))
		}
	}
	c.all = all.Base
	return nil
}

// starts returns the folder that contains the cgroups of the starts.
func (c *Cgroups) starts() string {
	if c.all != "" {
		return c.all
	}
	return c.Base
}

// LimitTotal sets limits on the sum of all starts; a field that is 0 removes its limit. It returns the limits that the kernel does
// not enforce. A nil Cgroups enforces none.
func (c *Cgroups) LimitTotal(l Limits) (rest Limits, err error) {
	if c == nil || c.all == "" {
		return l, nil
	}
	rest = l
	for _, controller := range c.controllers {
		refused := writeFiles(c.all, l.totalFiles(controller))
		if refused == nil {
			rest = rest.without(controller)
		}
		err = errors.Join(err, refused)
	}
	return rest, err
}

const noLimit = "max"

// totalFiles returns the files of one controller for the sum of all starts.
func (l Limits) totalFiles(controller string) []cgroupFile {
	text := func(isSet bool, value string) string {
		if isSet {
			return value
		}
		return noLimit
	}
	switch controller {
	case "memory":
		return []cgroupFile{{name: "memory.max", value: text(l.Memory > 0, strconv.FormatInt(l.Memory, 10))}}
	case "pids":
		return []cgroupFile{{name: "pids.max", value: text(l.Processes > 0, strconv.Itoa(l.Processes))}}
	case "cpu":
		return []cgroupFile{{name: "cpu.max", value: text(l.CPU > 0, strconv.FormatInt(max(1000, int64(l.CPU*cpuPeriod)), 10)) + " " + strconv.Itoa(cpuPeriod)}}
	}
	return nil
}

// Memory returns the memory and swap that the tree uses, in bytes. Without exact it adds up resident sizes, which count a shared
// page for each process; with exact each page counts once, which takes longer. A cgroup with the memory controller knows it.
func (t Tree) Memory(exact bool) int64 {
	if t.Cgroup != "" {
		text, err := os.ReadFile(filepath.Join(t.Cgroup, "memory.current"))
		if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil {
			return n
		}
	}
	size := residentSize
	if exact {
		size = proportionalSize
	}
	return sum(t.measured(), size)
}
