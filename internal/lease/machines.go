package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// UnknownMachineError reports a name that no machine has that has joined.
type UnknownMachineError struct{ Name string }

func (e *UnknownMachineError) Error() string {
	return fmt.Sprintf("no machine %q has joined; start its agent, or place the Space on another machine", e.Name)
}

// joinedMachine is a machine as it joined last.
type joinedMachine struct {
	*machineEffects
	machine Machine
	slots   []gpu.Slot
}

func (j joinedMachine) has(uuid gpu.DeviceUUID) bool {
	return slices.ContainsFunc(j.slots, func(s gpu.Slot) bool { return s.Device.UUID == uuid })
}

func (b *Broker) joinedMachines() []joinedMachine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.joined
}

// machineOf returns the machine that has the Device.
func (b *Broker) machineOf(uuid gpu.DeviceUUID) (joinedMachine, bool) {
	all := b.joinedMachines()
	if at := slices.IndexFunc(all, func(j joinedMachine) bool { return j.has(uuid) }); at >= 0 {
		return all[at], true
	}
	return joinedMachine{}, false
}

// statusPause is the pause after the requests to statusGroup machines: the answers of a thousand nodes in one moment would delay grants.
const (
	statusPause = 5 * time.Millisecond
	statusGroup = 10
)

// deviceStatus reads the Devices of all machines concurrently. It blocks as long as the slowest of them.
func (b *Broker) deviceStatus(ctx context.Context) (rows []gpu.DeviceStatus) {
	machines := b.joinedMachines()
	if len(machines) == 1 {
		return machines[0].machine.Status(ctx)
	}
	all := make([][]gpu.DeviceStatus, len(machines))
	var reading sync.WaitGroup
	for i, j := range machines {
		reading.Go(func() { all[i] = j.machine.Status(ctx) })
		if i%statusGroup == statusGroup-1 {
			pause(ctx.Done(), statusPause)
		}
	}
	reading.Wait()
	return slices.Concat(all...)
}

// DeviceTakenError refuses a machine with a Device that another machine has: two hosts or agents would lend it.
type DeviceTakenError struct {
	Device  gpu.DeviceUUID
	Machine string // that has it
}

func (e *DeviceTakenError) Error() string {
	if e.Machine == "" {
		return fmt.Sprintf("device %s belongs to the host's own machine already; end the agent on that machine, or set `gpus: none` on the host", e.Device)
	}
	return fmt.Sprintf("device %s belongs to node %s already; end one of the two agents", e.Device, e.Machine)
}

// errOwnMachine refuses to lose or remove the host's own machine.
var errOwnMachine = errors.New("the host's own machine cannot leave; stop the host instead")

// errStopped is the error of calls after the end of Run.
var errStopped = errors.New("the broker has stopped")

// Join adds a machine while Run runs, or lets one join again: after Lost with the report of what became of its Leases, or with other
// Devices. Devices that are not listed any more are lent no more, and their Leases finish. Every Slot is checked before it is lent.
// *DeviceTakenError: nothing has changed.
func (b *Broker) Join(machine Machine, report MachineReport) (err error) {
	name := machine.Name()
	if !b.do(func(all *schedulers) {
		if err = all.checkDevices(name, machine.Slots()); err != nil {
			return
		}
		sc := all.of(name)
		isKnown := sc != nil
		if !isKnown {
			sc = b.add(machine)
		}
		sc.disarmUnknown(machine, report)
		if isKnown {
			at := effectsOf(sc)
			at.machine = machine
			b.remember(joinedMachine{at, machine, machine.Slots()})
			sc.onJoin(machine.Slots(), report)
		} else {
			sc.adopt(report)
		}
		effectsOf(sc).startWatch()
		b.log.Info("machine joined", zap.String("machine", name), zap.Int("slots", len(machine.Slots())))
	}) {
		return errStopped
	}
	return err
}

// checkDevices returns an error if another machine has one of the Devices. A machine that is lost or leaves has none.
func (all *schedulers) checkDevices(machine string, slots []gpu.Slot) error {
	for _, sc := range all.list {
		if sc.machine == machine || sc.reach == lost || sc.parting {
			continue
		}
		for _, s := range slots {
			if !sc.retired[s.Device.UUID] && slices.ContainsFunc(sc.slots, func(o *slot) bool { return o.Device.UUID == s.Device.UUID }) {
				return &DeviceTakenError{Device: s.Device.UUID, Machine: sc.machine}
			}
		}
	}
	return nil
}

// Suspect reports that a beat of a machine is late: no Lease starts there until Reachable. Errors: *UnknownMachineError.
func (b *Broker) Suspect(name string) error {
	return b.onMachine(name, (*scheduler).onSuspect)
}

// Reachable ends Suspect. Errors: *UnknownMachineError.
func (b *Broker) Reachable(name string) error {
	return b.onMachine(name, (*scheduler).onReachable)
}

// Lost reports that a machine cannot be reached, and the time of its last beat by time.Now. Its active Leases become unreachable, until
// it joins again. Errors: *UnknownMachineError.
func (b *Broker) Lost(name string, lastBeat time.Time) error {
	if name == "" {
		return errOwnMachine
	}
	lastBeat = b.now().Add(-time.Since(lastBeat)) // by the clock of the Leases
	b.log.Warn("machine lost", zap.String("machine", name), zap.Time("beat", lastBeat))
	return b.onMachine(name, func(sc *scheduler) { sc.onLost(lastBeat) })
}

func (b *Broker) onMachine(name string, change func(*scheduler)) error {
	err := error(&UnknownMachineError{Name: name})
	if !b.do(func(all *schedulers) {
		if sc := all.of(name); sc != nil {
			change(sc)
			err = nil
		}
	}) {
		return errStopped
	}
	return err
}

// Part removes a machine: no Lease starts there, and those under way finish. It returns once they have, or when ctx ends; the machine
// still leaves then. The Leases of a lost machine are settled at once. Errors: *UnknownMachineError, ctx's cause.
func (b *Broker) Part(ctx context.Context, name string) error {
	if name == "" {
		return errOwnMachine
	}
	var left <-chan struct{}
	if err := b.onMachine(name, func(sc *scheduler) {
		left = effectsOf(sc).gone
		sc.onPart()
	}); err != nil {
		return err
	}
	select {
	case <-left:
		return nil
	case <-b.done:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// left implements effects.
func (m *machineEffects) left() {
	m.stopWatch()
	m.mu.Lock()
	m.joined = slices.DeleteFunc(slices.Clone(m.joined), func(j joinedMachine) bool { return j.machineEffects == m })
	m.mu.Unlock()
	m.log.Info("machine has left", zap.String("machine", m.machine.Name()))
	close(m.gone)
}

// startWatch watches the errors of the machine's Devices until stopWatch. Only the Broker's goroutine calls the two.
func (m *machineEffects) startWatch() {
	m.stopWatch()
	ctx, cancel := context.WithCancel(m.work)
	m.stopWatch = cancel
	machine := m.machine
	m.watching.Go(func() { m.watchHealth(ctx, machine) })
}

// add adds a machine with its Slots. The Broker's goroutine calls it, or New.
func (b *Broker) add(machine Machine) *scheduler {
	effects := &machineEffects{Broker: b, machine: machine, gone: make(chan struct{}), stopWatch: func() {}}
	sc := newScheduler(effects, machine.Slots(), b.config.QueueTimeout)
	effects.scheduler = sc
	sc.machine = machine.Name()
	sc.warmFor = b.config.WarmFor
	sc.priority = newPriority(b.config.QueueTimeout, b.config.Priorities)
	sc.perSpace = b.config.PerSpace
	sc.now = b.config.Now
	b.schedulers.add(sc)
	b.remember(joinedMachine{effects, machine, machine.Slots()})
	return sc
}

// remember adds or replaces a machine in the list that other goroutines read: the host's own machine, then the others by name.
func (b *Broker) remember(joined joinedMachine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(b.joined), func(j joinedMachine) bool { return j.machineEffects == joined.machineEffects })
	b.joined = append(others, joined)
	slices.SortFunc(b.joined, func(a, c joinedMachine) int { return strings.Compare(a.machine.Name(), c.machine.Name()) })
}

// absentMachine is a machine of an earlier start of the host that has not joined yet.
type absentMachine string

func (m absentMachine) Name() string         { return string(m) }
func (absentMachine) Slots() []gpu.Slot      { return nil }
func (absentMachine) Confine(string, Worker) {}
func (absentMachine) Clear(context.Context, gpu.DeviceUUID, Worker, []Worker) error {
	return ErrUnreachable
}
func (absentMachine) Status(context.Context) []gpu.DeviceStatus                  { return nil }
func (absentMachine) Watch(context.Context, func(gpu.DeviceUUID, gpu.Xid)) error { return nil }
func (absentMachine) Claim(context.Context, string, int) (Worker, error) {
	return Worker{}, ErrUnreachable
}
func (absentMachine) Occupy(gpu.DeviceUUID, Worker) error                  { return ErrUnreachable }
func (absentMachine) Freeze(context.Context, Worker) bool                  { return false }
func (absentMachine) Wait(ctx context.Context, _ Worker)                   { <-ctx.Done() }
func (absentMachine) End(context.Context, Worker, time.Duration) error     { return ErrUnreachable }
func (absentMachine) Runs(Worker) bool                                     { return false }
func (absentMachine) Arm(string, Worker, time.Duration)                    {}
func (absentMachine) Disarm(string)                                        {}
func (absentMachine) LendsNodes() bool                                     { return false }
func (absentMachine) Show(context.Context, string, []gpu.DeviceUUID) error { return ErrUnreachable }
func (absentMachine) Holders(context.Context) map[gpu.DeviceUUID][]int     { return nil }
func (absentMachine) Outsiders(context.Context, []ProcessUse, map[gpu.DeviceUUID][]Worker) []Outsider {
	return nil
}
func (absentMachine) Resume(context.Context, Resumption) (wait func() error) {
	return func() error { return ErrUnreachable }
}
func (absentMachine) BeginArm(context.Context, string, Worker, time.Duration) (wait func() error) {
	return func() error { return ErrUnreachable }
}
func (absentMachine) Describe(context.Context, int) ProcessInfo { return ProcessInfo{} }
