package lease

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Unleased is a process that uses a Device outside any Lease. It belongs to a Space, or is foreign to this host.
// The Device counts as busy.
type Unleased struct {
	Device gpu.DeviceUUID `json:"device"`
	PID    int            `json:"pid"`
	Space  string         `json:"space,omitempty"` // the Space of the process; "" for a foreign process, which is never ended
	Since  time.Time      `json:"since"`
	Ended  bool           `json:"ended,omitempty"` // the host is ending it

	start uint64
}

// inspectInterval is the interval of inspections. A process that two inspections in a row see is not a worker that
// is just starting or exiting.
const inspectInterval = 2 * time.Second

// inspectDevices runs until ctx ends.
func (b *Broker) inspectDevices(ctx context.Context) {
	again := time.NewTicker(inspectInterval)
	defer again.Stop()
	var previous []Unleased
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		b.retryNodes(ctx)
		current := b.findUnleased(ctx)
		var confirmed []Unleased
		for i, u := range current {
			at := slices.IndexFunc(previous, u.isSame)
			if at < 0 {
				continue
			}
			if current[i] = previous[at]; !b.isKnown(current[i]) {
				b.reportUnleased(&current[i])
			}
			confirmed = append(confirmed, current[i])
		}
		previous = current
		b.mu.Lock()
		b.unleased = confirmed
		b.mu.Unlock()
		b.do(func(sc *scheduler) { sc.onUnleased(confirmed) })
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
func (b *Broker) findUnleased(ctx context.Context) (all []Unleased) {
	holders := b.nodeHolders()
	for _, d := range b.config.Pool.Status(ctx) {
		pids := holders[d.UUID]
		for _, p := range d.Processes {
			if !slices.Contains(pids, p.PID) {
				pids = append(pids, p.PID)
			}
		}
		var workers []Worker
		if len(pids) > 0 {
			b.do(func(sc *scheduler) { workers = sc.deviceWorkers(d.UUID) })
		}
		for _, pid := range pids {
			if slices.ContainsFunc(workers, func(w Worker) bool { return b.config.Processes.Within(pid, w.PID, w.Start) }) {
				continue
			}
			var space string
			var start uint64
			if d.Simulated || slices.Contains(holders[d.UUID], pid) || driverSeesOurPIDs() {
				space, start = b.config.Processes.SpaceOf(pid)
			}
			all = append(all, Unleased{Device: d.UUID, PID: pid, Space: space, Since: b.now().UTC(), start: start})
		}
	}
	return all
}

// driverSeesOurPIDs is false in a container. There the driver lists the pids of the machine outside, where the
// same number is another process.
var driverSeesOurPIDs = sync.OnceValue(func() bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && namespace == "pid:[4026531836]" // PROC_PID_INIT_INO, linux/proc_ns.h
})

// onUnleased marks the free Slots of a Device busy if a process uses it outside any Lease, and rechecks the busy
// Slots of the others. The phases are therefore correct even while no Lease waits.
func (sc *scheduler) onUnleased(all []Unleased) {
	for _, s := range sc.slots {
		at := slices.IndexFunc(all, func(u Unleased) bool { return u.Device == s.Device.UUID })
		switch {
		case at >= 0 && s.phase == free:
			sc.markBusy(allocation{s}, fmt.Errorf("device %s is busy: pid %d uses it outside any lease", s.Device.UUID, all[at].PID))
		case at < 0 && s.phase == busy && s.holder == nil && !s.recheckAt.After(sc.now()):
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
func (b *Broker) reportUnleased(u *Unleased) {
	u.Ended = b.config.EndUnleased && u.Space != ""
	b.log.Warn("gpu used outside any lease", zap.String("device", string(u.Device)), zap.Int("pid", u.PID), zap.String("space", u.Space), zap.Bool("ended", u.Ended))
	if b.config.Unleased != nil {
		b.config.Unleased(*u)
	}
	if u.Ended {
		b.config.Processes.End(u.PID, u.start, idleTermGrace)
	}
}
