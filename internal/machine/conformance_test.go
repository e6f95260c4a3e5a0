package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/guard"
	"spacehost/internal/lease"
	"spacehost/internal/lease/leasetest"
)

// rig is a lease.Machine, and what is behind it.
type rig struct {
	t         *testing.T
	machine   lease.Machine
	inventory *inventory
	processes *processes
	nodes     *nodeFiles
	report    func() lease.MachineReport // of the guard of the machine
}

// wantArmed checks which Leases the guard watches.
func (r *rig) wantArmed(want ...lease.OpenLease) {
	r.t.Helper()
	if got := r.report().Open; !slices.Equal(got, want) {
		r.t.Errorf("armed %v, want %v", got, want)
	}
}

// inventory is a gputest.FakeInventory that reports errors of Devices, and lists occupants.
type inventory struct {
	*gputest.FakeInventory
	reports  chan xid
	occupied chan int
}

func (i *inventory) Watch(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error {
	for {
		select {
		case x := <-i.reports:
			report(x.Device, x.Xid)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (i *inventory) Occupy(_ gpu.DeviceUUID, pid int) error {
	i.occupied <- pid
	return nil
}

// processes are leasetest.Processes that record which were confined.
type processes struct {
	*leasetest.Processes
	mu       sync.Mutex
	confined []string
}

func (p *processes) Confine(instance string, pid int, start uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.confined = append(p.confined, fmt.Sprintf("%s %d %d", instance, pid, start))
}

func (p *processes) confinedOnes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.confined)
}

// nodeFiles implements lease.Nodes.
type nodeFiles struct {
	mu    sync.Mutex
	shown map[string][]gpu.DeviceUUID
}

func (n *nodeFiles) Show(_ context.Context, space string, devices []gpu.DeviceUUID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if space == "broken" {
		return errors.New("no such mount")
	}
	n.shown[space] = devices
	return nil
}

func (n *nodeFiles) Holders() map[gpu.DeviceUUID][]int {
	return map[gpu.DeviceUUID][]int{"GPU-fake-1": {7}}
}

// local is the machine with two Devices of two Slots.
func newRig(t *testing.T) (*rig, *lease.Local) {
	t.Helper()
	r := &rig{t: t, processes: &processes{Processes: leasetest.NewProcesses()}, nodes: &nodeFiles{shown: map[string][]gpu.DeviceUUID{}}}
	r.inventory = &inventory{gputest.NewFakeInventory(gputest.Devices(2)...), make(chan xid), make(chan int, 10)}
	pool, err := gpu.NewPool(t.Context(), r.inventory, 2)
	if err != nil {
		t.Fatal(err)
	}
	info := func(pid int) lease.ProcessInfo {
		return lease.ProcessInfo{User: "ada", Command: fmt.Sprintf("python %d", pid)}
	}
	return r, &lease.Local{Pool: pool, Processes: r.processes, Nodes: r.nodes, Info: info}
}

// machines are the implementations of lease.Machine.
var machines = map[string]func(t *testing.T) *rig{
	"local": func(t *testing.T) *rig {
		r, local := newRig(t)
		watching := &guard.Guard{Processes: r.processes, Strict: true}
		t.Cleanup(watching.Close)
		local.Guard = watching
		r.machine, r.report = local, watching.Report
		return r
	},
	"remote": func(t *testing.T) *rig {
		r, local := newRig(t)
		node := runNode(t, *local)
		broker := newFakeBroker()
		if _, _, err := newCluster(t, broker).connect(node, "gpu2"); err != nil {
			t.Fatal(err)
		}
		r.machine, r.report = broker.machine("gpu2"), node.guard.Report
		return r
	},
}

func runNode(t *testing.T, local lease.Local) *Node {
	t.Helper()
	node, err := NewNode(NodeConfig{Local: local})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = node.Run(ctx) }) // ends with ctx
	t.Cleanup(func() { stop(); running.Wait() })
	return node
}

// fakeBroker records what a Fleet does.
type fakeBroker struct {
	mu       sync.Mutex
	machines map[string]lease.Machine
	reports  []lease.MachineReport
	log      []string
	refuse   error // of the next Join
}

func newFakeBroker() *fakeBroker { return &fakeBroker{machines: map[string]lease.Machine{}} }

func (b *fakeBroker) machine(name string) lease.Machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machines[name]
}

func (b *fakeBroker) note(format string, args ...any) error {
	b.log = append(b.log, fmt.Sprintf(format, args...))
	return nil
}

func (b *fakeBroker) notes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.log)
}

func (b *fakeBroker) Join(m lease.Machine, r lease.MachineReport) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refuse; err != nil {
		b.refuse = nil
		return err
	}
	b.machines[m.Name()] = m
	b.reports = append(b.reports, r)
	return b.note("join %s with %d slots", m.Name(), len(m.Slots()))
}

func (b *fakeBroker) Suspect(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.note("suspect %s", name)
}

func (b *fakeBroker) Reachable(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.note("reachable %s", name)
}

func (b *fakeBroker) Lost(name string, _ time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.note("lost %s", name)
}

func (b *fakeBroker) Part(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines[name] == nil {
		return &lease.UnknownMachineError{Name: name}
	}
	return b.note("part %s", name)
}

func (r *rig) worker(pid int) lease.Worker {
	return lease.Worker{PID: pid, Start: r.processes.StartIn("run-1", "demo", pid)}
}

func (r *rig) wantError(err error, want error) {
	r.t.Helper()
	if want == nil && err != nil || want != nil && (err == nil || err.Error() != want.Error() || reflect.TypeOf(err) != reflect.TypeOf(want)) {
		r.t.Errorf("error %T %v, want %T %v", err, err, want, want)
	}
}

// conformance is what every lease.Machine does, except that only Local answers Runs.
var conformance = map[string]func(r *rig){
	"slots": func(r *rig) {
		var got []string
		for _, s := range r.machine.Slots() {
			got = append(got, fmt.Sprintf("%d %s", s.Index, s.Device.UUID))
		}
		if want := []string{"0 GPU-fake-0", "1 GPU-fake-0", "2 GPU-fake-1", "3 GPU-fake-1"}; !slices.Equal(got, want) {
			r.t.Errorf("slots %q, want %q", got, want)
		}
	},
	"clear": func(r *rig) {
		ctx, device := r.t.Context(), gpu.DeviceUUID("GPU-fake-0")
		r.wantError(r.machine.Clear(ctx, device, lease.Worker{}, nil), nil)
		self, beside := r.worker(7), r.worker(8)
		r.inventory.SetProcesses(device, gpu.Process{PID: 7, Memory: 1 << 30}, gpu.Process{PID: 8, Memory: 1 << 30})
		r.wantError(r.machine.Clear(ctx, device, self, []lease.Worker{beside}), nil)
		const limit = gputest.IdleMemory + 256<<20
		busy := &gpu.BusyError{UUID: device, PIDs: []int{7, 8}, Used: gputest.IdleMemory + 2<<30, Limit: limit}
		r.wantError(r.machine.Clear(ctx, device, lease.Worker{}, nil), busy)
		var found *gpu.BusyError
		if err := r.machine.Clear(ctx, device, lease.Worker{}, nil); !errors.As(err, &found) || !reflect.DeepEqual(found, busy) {
			r.t.Errorf("error %+v, want %+v", err, busy)
		}
		for _, want := range []error{&gpu.LostError{UUID: device}, &gpu.HungError{UUID: device, After: 5 * time.Second}, gpu.ErrClosed, &gpu.NotSupportedError{UUID: device, Tried: "list processes"}, &gpu.DriverError{Tried: "list processes", Reason: "ERROR_UNKNOWN"}} {
			r.inventory.SetHook(func(context.Context, gpu.DeviceUUID) error { return want })
			r.wantError(r.machine.Clear(ctx, device, lease.Worker{}, nil), want)
		}
		wrapped := fmt.Errorf("read device: %w", &gpu.LostError{UUID: device})
		r.inventory.SetHook(func(context.Context, gpu.DeviceUUID) error { return wrapped })
		if err := r.machine.Clear(ctx, device, lease.Worker{}, nil); err.Error() != wrapped.Error() || !errors.As(err, new(*gpu.LostError)) {
			r.t.Errorf("error %v, want %v", err, wrapped)
		}
		r.inventory.SetHook(nil)
		r.wantError(r.machine.Clear(ctx, "GPU-none", lease.Worker{}, nil), &gpu.UnknownDeviceError{UUID: "GPU-none"})
	},
	"clear ends with its context": func(r *rig) {
		cause := errors.New("enough")
		ctx, stop := context.WithCancelCause(r.t.Context())
		r.inventory.SetHook(func(ctx context.Context, _ gpu.DeviceUUID) error { <-ctx.Done(); return context.Cause(ctx) })
		time.AfterFunc(time.Second, func() { stop(cause) })
		if err := r.machine.Clear(ctx, "GPU-fake-0", lease.Worker{}, nil); !errors.Is(err, cause) {
			r.t.Errorf("error %v, want %v", err, cause)
		}
	},
	"status": func(r *rig) {
		r.inventory.SetProcesses("GPU-fake-0", gpu.Process{PID: 7, Memory: 1 << 30})
		r.inventory.SetHook(func(_ context.Context, uuid gpu.DeviceUUID) error {
			if uuid == "GPU-fake-1" {
				return &gpu.LostError{UUID: uuid}
			}
			return nil
		})
		rows := r.machine.Status(r.t.Context())
		if len(rows) != 2 || rows[0].MemoryUsed != gputest.IdleMemory+1<<30 || !slices.Equal(rows[0].Processes, []gpu.Process{{PID: 7, Memory: 1 << 30}}) || rows[0].Node != r.machine.Name() {
			r.t.Fatalf("status %+v", rows)
		}
		if !errors.As(rows[1].Cause, new(*gpu.LostError)) || rows[1].Error != rows[1].Cause.Error() || rows[1].Processes == nil {
			r.t.Errorf("status of a lost device %+v", rows[1])
		}
	},
	"watch": func(r *rig) {
		ctx, stop := context.WithCancel(r.t.Context())
		got, result := make(chan xid), make(chan error)
		go func() {
			result <- r.machine.Watch(ctx, func(device gpu.DeviceUUID, x gpu.Xid) { got <- xid{device, x} })
		}()
		r.inventory.reports <- xid{"GPU-fake-1", 79}
		if x := <-got; x != (xid{"GPU-fake-1", 79}) {
			r.t.Errorf("reported %+v", x)
		}
		stop()
		r.wantError(<-result, context.Canceled)
	},
	"claim": func(r *rig) {
		want := r.worker(7)
		got, err := r.machine.Claim(r.t.Context(), "run-1", 7)
		if r.wantError(err, nil); got != want {
			r.t.Errorf("claimed %+v, want %+v", got, want)
		}
		_, err = r.machine.Claim(r.t.Context(), "run-2", 7)
		r.wantError(err, &lease.NotOwnedError{PID: 7})
	},
	"confine before the next call": func(r *rig) {
		w := r.worker(7)
		r.machine.Confine("run-1", w)
		_, _ = r.machine.Claim(r.t.Context(), "run-1", 7)
		if got := r.processes.confinedOnes(); !slices.Equal(got, []string{"run-1 7 1"}) {
			r.t.Errorf("confined %q", got)
		}
	},
	"occupy": func(r *rig) {
		r.wantError(r.machine.Occupy("GPU-fake-0", r.worker(7)), nil)
		if pid := <-r.inventory.occupied; pid != 7 {
			r.t.Errorf("occupied by %d", pid)
		}
	},
	"freeze and thaw": func(r *rig) {
		ctx, w := r.t.Context(), r.worker(7)
		if !r.machine.Freeze(ctx, w) || !r.processes.Frozen(7) {
			r.t.Error("not frozen")
		}
		resume := func(w lease.Worker) error {
			return r.machine.Resume(ctx, lease.Resumption{Lease: "lease", Worker: w, Device: "GPU-fake-0", Left: time.Hour})()
		}
		r.wantError(resume(w), nil)
		r.wantArmed(lease.OpenLease{Lease: "lease", Worker: w})
		r.machine.Disarm("lease")
		r.wantError(resume(lease.Worker{PID: 9, Start: 9}), nil)
		if r.processes.Frozen(7) || r.machine.Freeze(ctx, lease.Worker{PID: 9, Start: 9}) {
			r.t.Error("not thawed, or another process frozen")
		}
		r.processes.SetIcebound(7, true)
		if err := resume(w); err == nil || err.Error() != "continue with an idle worker: the process stays frozen" {
			r.t.Errorf("error %v", err)
		}
	},
	"arm with an answer": func(r *rig) {
		w := r.worker(7)
		r.wantError(r.machine.BeginArm(r.t.Context(), "lease", w, time.Hour)(), nil)
		r.wantArmed(lease.OpenLease{Lease: "lease", Worker: w})
		r.machine.Disarm("lease")
	},
	"wait": func(r *rig) {
		w := r.worker(7)
		ctx, stop := context.WithTimeout(r.t.Context(), time.Second)
		defer stop()
		if r.machine.Wait(ctx, w); ctx.Err() == nil {
			r.t.Error("returned before the exit")
		}
		time.AfterFunc(time.Second, func() { r.processes.Exit(7) })
		var waiting sync.WaitGroup
		for range 2 {
			waiting.Go(func() { r.machine.Wait(r.t.Context(), w) })
		}
		waiting.Wait()
		r.machine.Wait(r.t.Context(), w)
		if r.processes.Alive(7) {
			r.t.Error("returned before the exit")
		}
	},
	"end": func(r *rig) {
		ctx, w := r.t.Context(), r.worker(7)
		r.wantError(r.machine.End(ctx, w, 3*time.Second), nil)
		r.wantError(r.machine.End(ctx, w, 0), nil)
		if ends := r.processes.Ends(7); !slices.Equal(ends, []time.Duration{3 * time.Second}) || r.processes.Alive(7) {
			r.t.Errorf("ended with %v", ends)
		}
		stubborn := r.worker(8)
		r.processes.SetStubborn(8, true)
		if err := r.machine.End(ctx, stubborn, 0); err == nil {
			r.t.Error("a process that survives is reported as ended")
		}
	},
	"show": func(r *rig) {
		if !r.machine.LendsNodes() {
			r.t.Error("lends no nodes")
		}
		r.wantError(r.machine.Show(r.t.Context(), "demo", []gpu.DeviceUUID{"GPU-fake-1"}), nil)
		if got := r.nodes.shown["demo"]; !slices.Equal(got, []gpu.DeviceUUID{"GPU-fake-1"}) {
			r.t.Errorf("shown %v", got)
		}
		if err := r.machine.Show(r.t.Context(), "broken", nil); err == nil || err.Error() != "no such mount" {
			r.t.Errorf("error %v", err)
		}
	},
	"holders": func(r *rig) {
		if got := r.machine.Holders(r.t.Context()); !maps.EqualFunc(got, map[gpu.DeviceUUID][]int{"GPU-fake-1": {7}}, slices.Equal) {
			r.t.Errorf("holders %v", got)
		}
	},
	"outsiders": func(r *rig) {
		own, other := r.worker(7), r.worker(8)
		uses := []lease.ProcessUse{{Device: "GPU-fake-0", PID: 7, HasNode: true}, {Device: "GPU-fake-0", PID: 8, HasNode: true, Memory: 5}}
		got := r.machine.Outsiders(r.t.Context(), uses, map[gpu.DeviceUUID][]lease.Worker{"GPU-fake-0": {own}})
		if want := (lease.Outsider{ProcessUse: uses[1], Space: "demo", Start: other.Start, IsOurs: true}); len(got) != 1 || got[0] != want {
			r.t.Errorf("outsiders %+v, want %+v", got, want)
		}
	},
	"describe": func(r *rig) {
		if got := r.machine.Describe(r.t.Context(), 7); got != (lease.ProcessInfo{User: "ada", Command: "python 7"}) {
			r.t.Errorf("described as %+v", got)
		}
	},
}

func TestConformance(t *testing.T) {
	for name, open := range machines {
		for what, check := range conformance {
			t.Run(name+" "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					check(open(t))
				})
			})
		}
	}
}
