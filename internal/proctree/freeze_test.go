package proctree

import (
	"context"
	"os"
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
	f.processes.Confine("test", worker.PID, worker.Start)
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
