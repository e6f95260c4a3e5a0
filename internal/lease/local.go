package lease

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"spacehost/gpu"
	"spacehost/internal/stack"
)

// Local is the host's own machine. Its fields do not change once it is in use.
type Local struct {
	Pool      *gpu.Pool
	Processes Processes
	Nodes     Nodes // nil: every Space can open every Device at any time
	// Guard is the agent that keeps the processes of Spaces when the host ends. Nil: they end with the host.
	Guard Guard
	// Info describes a process of this machine. It must not block. Nil: no process is described.
	Info func(pid int) ProcessInfo
}

var _ Machine = (*Local)(nil)

// Name implements Machine.
func (*Local) Name() string { return "" }

// Slots implements Machine.
func (m *Local) Slots() []gpu.Slot { return m.Pool.Slots() }

// Clear implements Machine.
func (m *Local) Clear(ctx context.Context, device gpu.DeviceUUID, self Worker, beside []Worker) error {
	own := beside
	if self.PID != 0 {
		own = append(slices.Clone(beside), self)
	}
	return m.Pool.Clear(ctx, device, gpu.Neighbours{Slots: len(own), Own: func(pid int) bool { return m.isWithin(pid, own) }})
}

func (m *Local) isWithin(pid int, workers []Worker) bool {
	return slices.ContainsFunc(workers, func(w Worker) bool { return m.Processes.Within(pid, w.PID, w.Start) })
}

// Status implements Machine.
func (m *Local) Status(ctx context.Context) []gpu.DeviceStatus { return m.Pool.Status(ctx) }

// Watch implements Machine. Without a driver that reports errors, there is nothing to watch.
func (m *Local) Watch(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error {
	watcher, ok := m.Pool.Inventory().(gpu.Watcher)
	if !ok {
		return nil
	}
	return watcher.Watch(ctx, report)
}

// Claim implements Machine.
func (m *Local) Claim(_ context.Context, instance string, pid int) (Worker, error) {
	host, start, ok := m.Processes.FromInside(instance, pid)
	if !ok {
		return Worker{}, &NotOwnedError{pid}
	}
	return Worker{PID: host, Start: start}, nil
}

// Confine implements Machine.
func (m *Local) Confine(instance string, w Worker) { m.Processes.Confine(instance, w.PID, w.Start) }

// Occupy implements Machine.
func (m *Local) Occupy(device gpu.DeviceUUID, w Worker) error {
	if simulator, ok := m.Pool.Inventory().(gpu.Simulator); ok {
		return simulator.Occupy(device, w.PID)
	}
	return nil
}

// Freeze implements Machine.
func (m *Local) Freeze(_ context.Context, w Worker) bool { return m.Processes.Freeze(w.PID, w.Start) }

// Resume implements Machine.
func (m *Local) Resume(ctx context.Context, r Resumption) (wait func() error) {
	return async(func() error { return m.ResumeAndWait(ctx, r) })
}

// ResumeAndWait is Resume with its wait.
func (m *Local) ResumeAndWait(ctx context.Context, r Resumption) error {
	m.Arm(r.Lease, r.Worker, r.Left)
	if err := m.Processes.Thaw(r.Worker.PID, r.Worker.Start); err != nil {
		return fmt.Errorf("continue with an idle worker: %w", err)
	}
	return m.Clear(ctx, r.Device, r.Worker, r.Beside)
}

// async runs do in a goroutine. wait returns its error, once.
func async(do func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() {
		stack.Reserve()
		done <- do()
	}()
	return func() error { return <-done }
}

// Wait implements Machine.
func (m *Local) Wait(ctx context.Context, w Worker) { m.Processes.Wait(ctx, w.PID, w.Start) }

// End implements Machine. It does not end with ctx: a worker is never left half ended.
func (m *Local) End(_ context.Context, w Worker, grace time.Duration) error {
	if !m.Processes.End(w.PID, w.Start, grace) {
		return errNotReclaimed
	}
	return nil
}

// Runs implements Machine.
func (m *Local) Runs(w Worker) bool { return m.Processes.Within(w.PID, w.PID, w.Start) }

// Arm implements Guard.
func (m *Local) Arm(lease string, w Worker, left time.Duration) {
	if m.Guard != nil {
		m.Guard.Arm(lease, w, left)
	}
}

// BeginArm implements Machine.
func (m *Local) BeginArm(_ context.Context, lease string, w Worker, left time.Duration) (wait func() error) {
	m.Arm(lease, w, left)
	return func() error { return nil }
}

// Disarm implements Guard.
func (m *Local) Disarm(lease string) {
	if m.Guard != nil {
		m.Guard.Disarm(lease)
	}
}

// LendsNodes implements Machine.
func (m *Local) LendsNodes() bool { return m.Nodes != nil }

// Show implements Machine.
func (m *Local) Show(ctx context.Context, space string, devices []gpu.DeviceUUID) error {
	return m.Nodes.Show(ctx, space, devices)
}

// Holders implements Machine.
func (m *Local) Holders(context.Context) map[gpu.DeviceUUID][]int {
	if m.Nodes == nil {
		return nil
	}
	return m.Nodes.Holders()
}

// Outsiders implements Machine.
func (m *Local) Outsiders(_ context.Context, uses []ProcessUse, workers map[gpu.DeviceUUID][]Worker) (all []Outsider) {
	for _, use := range uses {
		if m.isWithin(use.PID, workers[use.Device]) {
			continue
		}
		o := Outsider{ProcessUse: use, IsOurs: use.Simulated || use.HasNode || driverSeesOurPIDs()}
		if o.IsOurs {
			o.Space, o.Start = m.Processes.SpaceOf(use.PID)
		}
		all = append(all, o)
	}
	return all
}

// Describe implements Machine.
func (m *Local) Describe(_ context.Context, pid int) ProcessInfo {
	if m.Info == nil {
		return ProcessInfo{}
	}
	return m.Info(pid)
}

// driverSeesOurPIDs is false in a container. There the driver lists the pids of the machine outside, where the
// same number is another process.
var driverSeesOurPIDs = sync.OnceValue(func() bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && namespace == "pid:[4026531836]" // PROC_PID_INIT_INO, linux/proc_ns.h
})
