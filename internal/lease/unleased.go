package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Unleased is a process that uses a Device outside any Lease. It belongs to a Space, or is foreign to this host.
// The Device counts as busy.
type Unleased struct {
	Machine string         `json:"node,omitempty"` // absent: the host's own machine
	Device  gpu.DeviceUUID `json:"device"`
	PID     int            `json:"pid"`
	Space   string         `json:"space,omitempty"` // the Space of the process; "" for a foreign process, which is never ended
	Since   time.Time      `json:"since"`
	Ended   bool           `json:"ended,omitempty"`  // the host is ending it
	Memory  uint64         `json:"memory,omitempty"` // bytes of the Device at the last inspection; 0: the driver does not report it
	ProcessInfo

	start  uint64
	isOurs bool // the pid is one of this host's pid namespace
}

// ProcessInfo describes a process to the operator. It is empty in a container, where the driver lists pids of the machine outside.
type ProcessInfo struct {
	User    string `json:"user,omitempty"`
	Command string `json:"command,omitempty"` // printable, and shortened
}

// inspectInterval is the interval of inspections. A process that two inspections in a row see is not a worker that
// is just starting or exiting.
const inspectInterval = 2 * time.Second

// inspectDevices runs until ctx ends.
func (b *Broker) inspectDevices(ctx context.Context) {
	again := time.NewTicker(inspectInterval)
	defer again.Stop()
	var previous []Unleased
	unreadable := map[gpu.DeviceUUID]int{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		for _, joined := range b.joinedMachines() {
			joined.retryNodes(ctx, joined.machine)
		}
		all := b.sampler.Sample(ctx)
		b.countUnreadable(all, unreadable)
		current := b.findUnleased(ctx, all)
		var confirmed []Unleased
		for i, u := range current {
			at := slices.IndexFunc(previous, u.isSame)
			if at < 0 {
				continue
			}
			memory := u.Memory
			if current[i] = previous[at]; !b.isKnown(current[i]) {
				b.reportUnleased(ctx, &current[i])
			}
			current[i].Memory = memory
			confirmed = append(confirmed, current[i])
		}
		previous = current
		b.mu.Lock()
		b.unleased = confirmed
		b.mu.Unlock()
		b.do(func(all *schedulers) {
			for _, sc := range all.list {
				sc.onUnleased(confirmed)
			}
		})
	}
}

// countUnreadable counts for each Device the inspections in a row that found it lost or hanging.
func (b *Broker) countUnreadable(all []gpu.DeviceStatus, counts map[gpu.DeviceUUID]int) {
	for _, d := range all {
		if !errors.As(d.Cause, new(*gpu.LostError)) && !errors.As(d.Cause, new(*gpu.HungError)) {
			delete(counts, d.UUID)
			continue
		}
		if counts[d.UUID]++; counts[d.UUID] == 2 && b.config.Unreadable != nil {
			b.config.Unreadable(d.UUID, d.Cause)
		}
	}
}

func (u Unleased) isSame(o Unleased) bool {
	return u.Device == o.Device && u.PID == o.PID && u.start == o.start && u.Space == o.Space
}

func (b *Broker) isKnown(u Unleased) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.unleased, u.isSame)
}

// Unleased lists the processes that use a Device outside any Lease.
func (b *Broker) Unleased() []Unleased {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.unleased)
}

// findUnleased lists the processes first, and reads the permitted workers afterwards: a worker is allowed before
// it uses the Device.
func (b *Broker) findUnleased(ctx context.Context, devices []gpu.DeviceStatus) (all []Unleased) {
	byMachine := map[string][]gpu.DeviceStatus{}
	for _, d := range devices {
		byMachine[d.Node] = append(byMachine[d.Node], d)
	}
	for _, joined := range b.joinedMachines() {
		uses := joined.uses(ctx, byMachine[joined.machine.Name()])
		if len(uses) == 0 {
			continue
		}
		workers := map[gpu.DeviceUUID][]Worker{}
		joined.do(func(sc *scheduler) {
			for _, use := range uses {
				workers[use.Device] = sc.deviceWorkers(use.Device)
			}
		})
		for _, o := range joined.machine.Outsiders(ctx, uses, workers) {
			all = append(all, Unleased{Machine: joined.machine.Name(), Device: o.Device, PID: o.PID, Space: o.Space, Since: b.now().UTC(), Memory: o.Memory, start: o.Start, isOurs: o.IsOurs})
		}
	}
	return all
}

// uses lists the processes on the machine's own Devices. devices are its rows.
func (j joinedMachine) uses(ctx context.Context, devices []gpu.DeviceStatus) (all []ProcessUse) {
	holders := j.machine.Holders(ctx)
	for _, d := range devices {
		if !j.has(d.UUID) {
			continue
		}
		first := len(all)
		for _, pid := range holders[d.UUID] {
			all = append(all, ProcessUse{Device: d.UUID, PID: pid, HasNode: true, Simulated: d.Simulated})
		}
		for _, p := range d.Processes {
			if at := slices.IndexFunc(all[first:], func(use ProcessUse) bool { return use.PID == p.PID }); at >= 0 {
				all[first+at].Memory = p.Memory
			} else {
				all = append(all, ProcessUse{Device: d.UUID, PID: p.PID, Memory: p.Memory, Simulated: d.Simulated})
			}
		}
	}
	return all
}

// onUnleased marks the free Slots of a Device busy if a process uses it outside any Lease, and rechecks the busy
// Slots of the others. The phases are therefore correct even while no Lease waits.
func (sc *scheduler) onUnleased(all []Unleased) {
	if sc.reach == lost {
		return
	}
	for _, s := range sc.slots {
		at := slices.IndexFunc(all, func(u Unleased) bool { return u.Device == s.Device.UUID })
		switch {
		case at >= 0 && s.phase == free:
			sc.touched = true
			sc.markBusy(allocation{s}, fmt.Errorf("device %s is busy: pid %d uses it outside any lease", s.Device.UUID, all[at].PID))
		case at < 0 && s.phase == busy && s.holder == nil && !s.recheckAt.After(sc.now()):
			sc.touched = true
			sc.recheckSlot(s)
		}
	}
}

// deviceWorkers are the workers that may use a Device: those of its Leases, idle ones, and those that are being
// ended.
func (sc *scheduler) deviceWorkers(uuid gpu.DeviceUUID) (all []Worker) {
	for _, s := range sc.slots {
		if s.Device.UUID != uuid {
			continue
		}
		if o := s.occupant(); o != nil && o.Worker.PID != 0 {
			all = append(all, o.Worker)
		}
	}
	return all
}

// reportUnleased reports the process once, and ends a Space's process where that is the policy.
func (b *Broker) reportUnleased(ctx context.Context, u *Unleased) {
	joined, known := b.machineOf(u.Device)
	if known && u.isOurs {
		u.ProcessInfo = joined.machine.Describe(ctx, u.PID)
	}
	u.Ended = b.config.EndUnleased && u.Space != "" && known
	b.log.Warn("gpu used outside any lease", zap.String("device", string(u.Device)), zap.Int("pid", u.PID), zap.String("space", u.Space), zap.Bool("ended", u.Ended))
	if b.config.Unleased != nil {
		b.config.Unleased(*u)
	}
	if u.Ended {
		_ = joined.machine.End(ctx, Worker{PID: u.PID, Start: u.start}, idleTermGrace) // the next inspection finds what is left
	}
}
