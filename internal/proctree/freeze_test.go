package proctree

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freezable starts a Space with a confined worker and a child of it, both of which count steps.
type freezable struct {
	*forest
	worker Process
	steps  []string // files of worker and child
}

func newFreezable(t *testing.T) *freezable {
	t.Helper()
	c := trueCgroups(t)
	dir := tempDir(t)
	w := &freezable{steps: []string{filepath.Join(dir, "worker"), filepath.Join(dir, "child")}}
	w.forest = plant(t, node{Name: "runner", Children: []node{
		{Name: "worker", Group: true, ExitsOnTERM: true, Steps: w.steps[0], Children: []node{{Name: "child", Steps: w.steps[1]}}},
	}})
	w.inCgroup(t, c)
	w.worker = w.pids["worker"]
	for _, name := range []string{"worker", "child"} { // the child stands for a later one
		if err := confine(w.tree.Cgroup, w.worker); err != nil {
			t.Fatal(err)
		}
		if err := enter(filepath.Join(w.tree.Cgroup, workerCgroup(w.worker)), w.pids[name].PID); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// counted returns the steps so far.
func (w *freezable) counted(t *testing.T) (total int64) {
	t.Helper()
	for _, path := range w.steps {
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the process has not begun
		}
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// freeze returns once the kernel has stopped the processes.
func (w *freezable) freeze(t *testing.T) {
	t.Helper()
	if !w.processes.Freeze(w.worker.PID, w.worker.Start) {
		t.Fatal("it cannot be frozen")
	}
	eventually(t, "the kernel has frozen it", func() bool {
		text, _ := os.ReadFile(filepath.Join(w.tree.Cgroup, workerCgroup(w.worker), "cgroup.events"))
		return string(text) == "populated 1\nfrozen 1\n"
	})
}

// TestFrozenWorker checks that a frozen worker and its child make no step, that the worker counts as running, and that it
// continues.
func TestFrozenWorker(t *testing.T) {
	w := newFreezable(t)
	eventually(t, "it counts", func() bool { return w.counted(t) > 10 })
	w.freeze(t)
	before := w.counted(t)
	if w.worker.Await(100 * time.Millisecond) {
		t.Error("it has exited")
	}
	if after := w.counted(t); after != before {
		t.Errorf("%d steps while frozen", after-before)
	}
	w.expectRunning(t, "runner", "worker", "child")
	if !w.processes.Within(w.pids["child"].PID, w.worker.PID, w.worker.Start) {
		t.Error("its child is not within the worker")
	}
	if err := w.processes.Thaw(w.worker.PID, w.worker.Start); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it counts again", func() bool { return w.counted(t) > before+10 })
	if err := w.processes.Thaw(w.worker.PID, w.worker.Start); err != nil {
		t.Errorf("a second thaw: %v", err)
	}
}

// TestEndOfAFrozenWorker checks that End ends it: with a grace through its handler of SIGTERM, without one by SIGKILL.
func TestEndOfAFrozenWorker(t *testing.T) {
	for name, grace := range map[string]time.Duration{"with grace": patient, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			w := newFreezable(t)
			w.freeze(t)
			if took := w.end(t, "worker", grace); took > patient/2 {
				t.Errorf("it took %s", took)
			}
			w.expectRunning(t, "runner")
		})
	}
}

// likeSpaces is a worker of `spaces` between two calls (spaces/zero/wrappers.py): SIGTERM closes what its main thread reads,
// and another thread waits, like the monitor of tqdm.
const likeSpaces = `
import os, signal, threading
read, write = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.close(read))
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("waits", flush=True)
try:
    os.read(read, 1)
except OSError:
    os._exit(0)
`

// TestAFrozenPythonHandlesSIGTERM checks that the main thread of a thawed worker gets the signal, and not one of its other
// threads, where it would have no effect.
func TestAFrozenPythonHandlesSIGTERM(t *testing.T) {
	w := newFreezable(t)
	for range 8 {
		cmd := exec.Command("python3", "-c", likeSpaces)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "waits\n" {
			t.Fatalf("python3 said %q, %v", line, err)
		}
		s, _ := ReadStat(cmd.Process.Pid)
		if err := confine(w.tree.Cgroup, s.Process); err != nil {
			t.Fatal(err)
		}
		w.worker = s.Process
		w.freeze(t)
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		if !w.processes.End(s.PID, s.Start, patient) {
			t.Fatal("it has not ended")
		}
		if err := <-exited; err != nil {
			t.Fatalf("it did not handle SIGTERM: %v", err)
		}
	}
}

// TestAFrozenWorkerIsAskedToExit checks that SIGTERM from its own Space ends a frozen worker, so that a Python that joins
// its workers at its exit can exit.
func TestAFrozenWorkerIsAskedToExit(t *testing.T) {
	w := newFreezable(t)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- w.processes.Run(ctx) }()
	defer func() { cancel(); <-over }()
	w.freeze(t)
	if err := w.worker.signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !w.worker.Await(patient) {
		t.Error("it is still running")
	}
}

// TestFreezeWithoutACgroup checks that nothing changes.
func TestFreezeWithoutACgroup(t *testing.T) {
	f := plant(t, node{Name: "runner", Children: []node{{Name: "worker", Group: true}}})
	worker := f.pids["worker"]
	f.processes.Confine(testInstance, worker.PID, worker.Start)
	if f.processes.Freeze(worker.PID, worker.Start) {
		t.Error("it was frozen")
	}
	if err := f.processes.Thaw(worker.PID, worker.Start); err != nil {
		t.Error(err)
	}
}

// TestThawOfALostCgroup checks that a worker that cannot continue is reported.
func TestThawOfALostCgroup(t *testing.T) {
	w := newFreezable(t)
	w.freeze(t)
	if err := endCgroup(filepath.Join(w.tree.Cgroup, workerCgroup(w.worker)), patient); err != nil {
		t.Fatal(err)
	}
	if err := w.processes.Thaw(w.worker.PID, w.worker.Start); err == nil {
		t.Error("no error")
	}
}
