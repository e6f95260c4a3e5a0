package proctree

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/kernelfile"
)

// Freeze stops a worker and what it has started since Confine, until Thaw or End. It returns false if the worker has no
// cgroup; then nothing has changed. The kernel stops the processes a moment after Freeze has returned. A frozen process
// is still alive, and SIGKILL ends it.
func (p *Processes) Freeze(pid int, start uint64) bool {
	worker := Process{pid, start}
	dir := p.cgroupOf(worker)
	if dir == "" {
		return false
	}
	if err := setFrozen(dir, true); err != nil {
		p.logger().Warn("cannot freeze worker", zap.Int("worker", pid), zap.Error(err))
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen, p.workerCgroups = map[Process]bool{}, map[Process]string{}
	}
	p.frozen[worker], p.workerCgroups[worker] = true, dir
	return true
}

// cgroupOf returns the cgroup of a worker, or "". It looks for it once: a worker is frozen after each call.
func (p *Processes) cgroupOf(worker Process) string {
	p.mu.Lock()
	dir := p.workerCgroups[worker]
	p.mu.Unlock()
	if dir == "" {
		dir = p.cgroups.ofWorker(worker)
	}
	return dir
}

// Thaw lets a frozen worker continue. It does nothing for a worker that is not frozen. After an error the worker is still
// frozen, or gone.
func (p *Processes) Thaw(pid int, start uint64) error {
	worker := Process{pid, start}
	p.mu.Lock()
	dir, frozen := p.workerCgroups[worker], p.frozen[worker]
	p.mu.Unlock()
	if !frozen {
		return nil
	}
	if err := setFrozen(dir, false); err != nil {
		return fmt.Errorf("thaw worker %d: %w", pid, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.frozen, worker)
	return nil
}

func setFrozen(dir string, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	return kernelfile.Write(filepath.Join(dir, "cgroup.freeze"), value)
}

// endAsked kills the frozen workers that were asked to exit: a frozen process does not handle SIGTERM. A Python process
// that exits sends SIGTERM to its workers and waits for them (multiprocessing.util._exit_function).
func (p *Processes) endAsked() {
	p.mu.Lock()
	frozen := maps.Clone(p.frozen)
	p.mu.Unlock()
	for worker := range frozen {
		if isAskedToExit(worker.PID) {
			_ = worker.signal(unix.SIGKILL) // ESRCH: it has exited; EAGAIN: the next scan retries
		}
	}
}

// isAskedToExit reports whether SIGHUP, SIGINT or SIGTERM is pending for a process.
func isAskedToExit(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // an exited process has no files
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		mask, _ := strconv.ParseUint(strings.TrimSpace(rest), 16, 64) // digits written by the kernel
		if mask&(1<<(unix.SIGHUP-1)|1<<(unix.SIGINT-1)|1<<(unix.SIGTERM-1)) != 0 {
			return true
		}
	}
	return false
}
