package check

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
)

// Config says what spacehost will use on this machine.
type Config struct {
	State        string   // the host's folder; it need not be there yet
	Environments string   // the folder for Python environments; neither need this
	Addresses    []string // where spacehost listens

	// GPUs opens NVML and reads every Device, or says with gpu's errors why it cannot. It may block, and for ever.
	GPUs func(ctx context.Context) ([]gpu.DeviceStatus, error)

	machine machine
}

// Checks lists all checks, in the order in which their Findings are shown.
func Checks(c Config) []Check {
	c.machine = c.machine.orThis()
	return []Check{
		// NVML gives up after 30 s of its own, which a healthy machine of many GPUs without persistence daemon may nearly need.
		{Name: "gpu", Limit: 35 * time.Second, Late: lateGPU, Probe: c.devices},
		{Name: "python", Limit: 15 * time.Second, Probe: c.python},
		{Name: "cgroup", Probe: c.cgroup},
		{Name: "isolation", Probe: c.isolation},
		{Name: "limits", Probe: c.limits},
		{Name: "environment", Probe: c.environment},
		{Name: "disk", Late: lateDisk, Probe: c.disk},
		{Name: "container", Probe: c.container},
		{Name: "ports", Probe: c.ports},
		{Name: "init", Probe: c.processOne},
	}
}

// machine is what is looked at. The zero value is this machine; tests put a tree of their own in its place.
type machine struct {
	root          string   // holds proc, sys, dev and run; empty: /
	environ       []string // NAME=VALUE; nil: ours
	pid           int      // 0: ours
	access        func(path string, mode uint32) error
	statfs        func(path string) (unix.Statfs_t, error)
	userNamespace func(ctx context.Context) error
	landlock      func() (abi int, err error)
	mayKill       func(cgroup string) error // at one stroke
}

func (m machine) orThis() machine {
	if m.root == "" {
		m.root = "/"
	}
	if m.environ == nil {
		m.environ = os.Environ()
	}
	if m.pid == 0 {
		m.pid = os.Getpid()
	}
	if m.access == nil {
		m.access = func(path string, mode uint32) error {
			return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
		}
	}
	if m.statfs == nil {
		m.statfs = func(path string) (s unix.Statfs_t, err error) { return s, unix.Statfs(path, &s) }
	}
	if m.userNamespace == nil {
		m.userNamespace = tryUserNamespace
	}
	if m.mayKill == nil {
		m.mayKill = func(cgroup string) error { return unix.Access(filepath.Join(cgroup, "cgroup.kill"), unix.W_OK) }
	}
	if m.landlock == nil {
		m.landlock = landlockABI
	}
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

// read returns a file's text without the newline at its end; empty if it cannot be read.
func (m machine) read(name string) string {
	text, _ := os.ReadFile(m.path(name))
	return strings.TrimSpace(string(text))
}

func (m machine) has(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// glob returns paths below the root.
func (m machine) glob(pattern string) []string {
	found, _ := filepath.Glob(m.path(pattern)) // our patterns are well formed
	return found
}

// shown is a path below the root as people know it.
func (m machine) shown(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, m.root), "/")
}

// variable is the last of that name, as for a process that is started with this environment.
func (m machine) variable(name string) string {
	value := ""
	for _, pair := range m.environ {
		if key, v, _ := strings.Cut(pair, "="); key == name {
			value = v
		}
	}
	return value
}

// field is a line "name: value" of a file in proc.
func (m machine) field(file, name string) string {
	for line := range strings.Lines(m.read(file)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
