package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/sandbox"
)

// Config describes what spacehost will use on this machine.
type Config struct {
	State        string   // the host's folder; it need not exist yet
	Environments string   // the folder of Python environments; it need not exist yet
	UV           string   // a uv that is used if there is none on PATH; "": none
	Addresses    []string // addresses on which spacehost listens

	SpacesAreRoot bool     // whether the code of Spaces would run as root
	Demands       []Demand // levels of isolation that a configuration file demands

	// GPUs opens NVML and reads every Device, or returns one of gpu's errors. It may block, even forever. Devices of nodes may follow.
	GPUs func(ctx context.Context) ([]gpu.DeviceStatus, error)

	machine machine
}

// Checks lists all checks, in the display order of their Findings.
func Checks(c Config) []Check {
	c.machine = c.machine.orThis()
	return []Check{
		// NVML has its own limit of 30 s, which a healthy machine with many GPUs and no persistence daemon may nearly
		// need.
		{Name: "gpu", Limit: 35 * time.Second, Late: lateGPU, Probe: c.devices},
		{Name: "python", Limit: 15 * time.Second, Probe: c.python},
		{Name: "cgroup", Probe: c.cgroup},
		{Name: "isolation", Limit: 15 * time.Second, Probe: c.isolation}, // each probe has a limit of its own
		{Name: "limits", Probe: c.limits},
		{Name: "environment", Probe: c.environment},
		{Name: "disk", Late: lateDisk, Probe: c.disk},
		{Name: "container", Probe: c.container},
		{Name: "ports", Probe: c.ports},
		{Name: "init", Probe: c.processOne},
	}
}

// machine is the examined machine. The zero value is this machine; tests replace it with their own file tree.
type machine struct {
	root       string   // holds proc, sys, dev and run; empty: /
	environ    []string // NAME=VALUE; nil: this process's
	pid        int      // 0: this process's
	access     func(path string, mode uint32) error
	statfs     func(path string) (unix.Statfs_t, error)
	namespaces func(dir string) (sandbox.NamespacesProbe, error)
	files      func() sandbox.FilesProbe
	canKill    func(cgroup string) error // whether cgroup.kill can be used
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
	if m.namespaces == nil {
		m.namespaces = sandbox.Probe
	}
	if m.files == nil {
		m.files = sandbox.ProbeFiles
	}
	if m.canKill == nil {
		m.canKill = func(cgroup string) error { return unix.Access(filepath.Join(cgroup, "cgroup.kill"), unix.W_OK) }
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

// shown returns a path below the root as a user knows it.
func (m machine) shown(path string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, m.root), "/")
}

// variable returns the last value of that name, which is what a process started with this environment gets.
func (m machine) variable(name string) string {
	value := ""
	for _, pair := range m.environ {
		if key, v, _ := strings.Cut(pair, "="); key == name {
			value = v
		}
	}
	return value
}

// field returns the value of a line "name: value" in a file of proc.
func (m machine) field(file, name string) string {
	for line := range strings.Lines(m.read(file)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
