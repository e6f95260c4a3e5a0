package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes the machine of the measurement.
type machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	Kernel     string  `json:"kernel"`
	Load       string  `json:"load"` // before the first round: load of other processes
	FsyncP50   float64 `json:"fsync_p50_ms"`
	FsyncP99   float64 `json:"fsync_p99_ms"`
	OpenFiles  uint64  `json:"open_files"`
	HasBrowser bool    `json:"chromium"`
}

// versions are the versions that were measured.
type versions struct {
	Gradio    string `json:"gradio"`
	Spaces    string `json:"spaces"`
	Python    string `json:"python"`
	Go        string `json:"go"`
	Spacehost string `json:"spacehost"`
}

func thisMachine(dir string) machine {
	m := machine{CPU: cpu(), Cores: runtime.NumCPU(), Kernel: kernel(), HasBrowser: chromium() != ""}
	load, _ := os.ReadFile("/proc/loadavg") // empty if the file does not exist
	m.Load = strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " ")
	took := fsyncs(dir, 0)
	m.FsyncP50, m.FsyncP99 = percentile(took, 50), percentile(took, 99)
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		m.OpenFiles = limit.Cur
	}
	return m
}

func cpu() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // unknown if the file does not exist
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOOS
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// fsyncs returns the times in which this disk stores four kilobytes, ascending, with a pause before each write. A
// hold is committed once per GPU call, and an idle disk takes longer.
func fsyncs(dir string, pause time.Duration) (took []time.Duration) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return nil
	}
	defer f.Close()
	page := make([]byte, 4096)
	for range 200 {
		time.Sleep(pause)
		if _, err := f.Write(page); err != nil {
			return nil
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return nil
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

// raiseOpenFiles raises the limit of open files to the maximum; started processes inherit it.
func raiseOpenFiles() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // a limit that is too low shows as dropped visitors
	}
}

func (b *bench) versions(ctx context.Context) versions {
	v := versions{Go: runtime.Version(), Spacehost: b.spacehost}
	if b.env != nil {
		v.Gradio, v.Spaces, v.Python = b.env.Gradio, b.env.Spaces, b.env.PythonVersion
	}
	if filepath.Dir(b.spacehost) == b.scratch { // built here
		c := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
		c.Dir = b.root
		if out, err := c.Output(); err == nil {
			v.Spacehost = strings.TrimSpace(string(out))
		}
	}
	return v
}

func (v versions) String() string {
	if v.Gradio == "" {
		return fmt.Sprintf("spacehost %s, %s", v.Spacehost, v.Go)
	}
	return fmt.Sprintf("gradio %s, spaces %s, Python %s; spacehost %s, %s", v.Gradio, v.Spaces, v.Python, v.Spacehost, v.Go)
}

// processUsage is what a process has used.
type processUsage struct {
	cpu          time.Duration
	memory, peak int64 // bytes
}

// usageOf reads /proc. It is zero for a process that has ended.
func usageOf(pid int) processUsage {
	status := fmt.Sprintf("/proc/%d/status", pid)
	return processUsage{
		cpu: ticks(pid) * 10 * time.Millisecond, memory: int64(kilobytes(status, "VmRSS:")) << 10, peak: int64(kilobytes(status, "VmHWM:")) << 10,
	}
}
