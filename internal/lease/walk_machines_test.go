package lease

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/gpu"
)

// TestRandomWalkOfMachines is TestRandomWalk on 1 to 5 machines that join, leave, are late, are lost, and come back with or
// without what they had. The limits count over all machines.
func TestRandomWalkOfMachines(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	steps := 12_000
	if os.Getenv("SPACEHOST_FIRE") != "" { // a million over all sizes
		steps = 1_000_000 / 4
	}
	counts := map[string]int{}
	for _, config := range []struct {
		share   int
		warmFor time.Duration
	}{{1, 0}, {1, 3 * time.Minute}, {2, 0}, {3, 3 * time.Minute}} {
		t.Logf("%+v; repeat with -walk.seed=%d", config, seed)
		f := &fleetWalk{t: t, rand: rand.New(rand.NewPCG(seed, uint64(config.share))), share: config.share, warmFor: config.warmFor, shared: newSchedulers(), counts: counts}
		f.join("")
		for range steps {
			f.step()
			f.check()
			if t.Failed() {
				t.Fatalf("after %q, %+v, -walk.seed=%d", f.lastAction, config, seed)
			}
		}
	}
	often := []string{"joined", "left", "suspect", "lost", "back", "device left", "device joined"}
	for _, what := range append(often, "left while lost", "regained", "ended there", "unknown there", "settled while lost", "reported late") {
		least := steps / 50_000 // a walk that never reaches it proves nothing about it
		if slices.Contains(often, what) {
			least = steps / 10_000
		}
		if counts[what] < least {
			t.Errorf("%q happened %d times, want at least %d: %v", what, counts[what], least, counts)
		}
	}
}

// fleetWalk is a walk for each machine. They share the clock.
type fleetWalk struct {
	t          *testing.T
	rand       *rand.Rand
	share      int
	warmFor    time.Duration
	shared     *schedulers
	walks      []*walk
	names      int // machines made so far
	devices    int // Devices made so far
	counts     map[string]int
	lastAction string
}

// join adds a machine of 1 to 3 Devices.
func (f *fleetWalk) join(name string) {
	h := newSchedulerHarness(f.t, 0)
	k := &walk{schedulerHarness: h, share: f.share, rand: f.rand, fleet: f, liveWorkers: map[Worker]allocation{}}
	if len(f.walks) > 0 {
		h.clock = f.walks[0].clock
	}
	k.pids = 1_000_000 * f.names
	k.leaseCount = 1_000_000 * f.names
	k.machine, k.warmFor = name, f.warmFor
	k.priority = newPriority(k.queueTimeout, []int{0, 1, 2})
	k.perSpace = func(space string) int { return map[string]int{"other": 2}[space] }
	k.setSlots(f.newSlots(nil, 1+f.rand.IntN(3)))
	f.shared.add(k.scheduler)
	f.walks = append(f.walks, k)
	f.names++
	f.counts["joined"]++
}

// newSlots adds Slots of n new Devices.
func (f *fleetWalk) newSlots(slots []gpu.Slot, n int) []gpu.Slot {
	for range n {
		f.devices++
		d := gpu.Device{UUID: gpu.DeviceUUID(fmt.Sprintf("GPU-%d", f.devices)), MemoryTotal: 80 << 30}
		for range f.share {
			slots = append(slots, gpu.Slot{Index: len(slots), Device: d})
		}
	}
	return slots
}

func (f *fleetWalk) step() {
	k := f.walks[f.rand.IntN(len(f.walks))]
	if k.reach == lost && !k.parting && f.rand.IntN(60) == 0 {
		f.lastAction = fmt.Sprintf("lost machine %q leaves", k.machine)
		f.counts["left while lost"]++
		k.onPart()
		k.settleStep()
		return
	}
	if k.reach == lost && f.rand.IntN(12) == 0 {
		f.lastAction = fmt.Sprintf("machine %q is back", k.machine)
		f.comeBack(k)
		k.settleStep()
		return
	}
	if k.reach == suspect && f.rand.IntN(12) == 0 {
		f.lastAction = fmt.Sprintf("machine %q can be reached", k.machine)
		k.onReachable()
		k.settleStep()
		return
	}
	if f.rand.IntN(30) > 0 {
		k.step()
		f.lastAction = fmt.Sprintf("%s on %q", k.lastAction, k.machine)
		return
	}
	f.lastAction = fmt.Sprintf("change of machine %q", k.machine)
	switch n := f.rand.IntN(7); {
	case n == 0 && len(f.walks) < 5:
		f.join(fmt.Sprint("m", f.names))
	case n == 1:
		f.changeDevices(k)
	case k.machine == "": // it is always there
	case n == 2 && k.reach == reachable:
		f.counts["suspect"]++
		k.onSuspect()
	case n >= 3 && n <= 5 && k.reach != lost && (len(k.scheduler.active()) > 0 || f.rand.IntN(10) == 0):
		f.counts["lost"]++
		k.onLost(k.clock.Add(-time.Duration(f.rand.Int64N(int64(15 * time.Second)))))
	case n == 6 && k.reach != lost && f.rand.IntN(4) == 0 && !k.parting:
		k.onPart()
	}
	k.settleStep()
}

// changeDevices lets Devices leave and join while the machine can be reached.
func (f *fleetWalk) changeDevices(k *walk) {
	if k.reach != reachable || k.parting {
		return
	}
	k.onJoin(f.changedSlots(k), MachineReport{})
}

func (f *fleetWalk) changedSlots(k *walk) (slots []gpu.Slot) {
	for _, device := range k.devices {
		if f.rand.IntN(3) > 0 {
			for _, s := range device {
				slots = append(slots, gpu.Slot{Index: len(slots), Device: s.Device})
			}
		} else {
			f.counts["device left"]++
		}
	}
	if len(k.devices) < 4 && f.rand.IntN(2) == 0 || len(slots) == 0 {
		f.counts["device joined"]++
		slots = f.newSlots(slots, 1)
	}
	return slots
}

// comeBack lets a lost machine join again. What became of each of its Leases is drawn by lot.
func (f *fleetWalk) comeBack(k *walk) {
	var report MachineReport
	for _, l := range k.openLeases(func(l *Lease) bool { return l.State == Unreachable }) {
		switch f.rand.IntN(4) {
		case 0: // the machine does not know it
			delete(k.liveWorkers, l.Worker)
			f.counts["unknown there"]++
		case 1:
			used := time.Duration(f.rand.Int64N(int64(time.Minute))) - 5*time.Second
			report.Ended = append(report.Ended, EndedLease{Lease: l.ID, State: []State{Released, Expired, Revoked, "nonsense"}[f.rand.IntN(4)], Reason: "there", Used: used})
			f.counts["ended there"]++
		default:
			report.Open = append(report.Open, OpenLease{l.ID, l.Worker})
			f.counts["regained"]++
		}
	}
	for _, l := range k.all { // of Leases that were settled while it was lost
		if k.leases[l.ID] == nil && !l.lastBeat.IsZero() && f.rand.IntN(2) == 0 {
			report.Ended = append(report.Ended, EndedLease{Lease: l.ID, State: Released, Used: time.Hour})
		}
	}
	slots := f.changedSlots(k)
	k.onJoin(slots, report)
	f.counts["reported late"] += len(k.late)
	k.late = nil
	for _, w := range k.dismissed {
		delete(k.liveWorkers, w)
	}
	k.dismissed = nil
	f.counts["back"]++
}

func (f *fleetWalk) check() {
	for _, k := range slices.Clone(f.walks) {
		if k.hasParted {
			f.checkLeft(k)
			continue
		}
		for _, l := range k.all {
			if k.reach == lost && k.leases[l.ID] == nil && l.Reason == ReasonMachineLost && !l.lastBeat.IsZero() && l.Ended.Equal(k.clock) {
				f.counts["settled while lost"]++
			}
		}
		for _, l := range k.grants {
			if !k.mayStart() && !k.begun[l] { // the answer to a warm one may come late
				f.t.Errorf("lease %s was granted on machine %q, which is %q", l.ID, k.machine, k.reach)
			}
		}
		k.check()
		f.checkMachine(k)
	}
	onSlot := slotCounts{map[string]int{}, map[string]int{}}
	for _, k := range f.walks {
		for _, l := range append(k.openLeases(k.isOnSlot), k.warmStarts...) {
			onSlot.add(l)
		}
	}
	for space, n := range onSlot.spaces {
		if got := f.shared.onSlot.spaces[space]; got != n || len(f.shared.onSlot.spaces) != len(onSlot.spaces) {
			f.t.Errorf("%s has %d leases on slots, counted %d", space, n, got)
		}
	}
}

// checkMachine: each Lease is on its machine, and on one Slot at most over all machines. On a lost machine no Lease starts.
func (f *fleetWalk) checkMachine(k *walk) {
	for id, l := range k.leases {
		if l.Machine != k.machine || !strings.HasSuffix(l.Instance, "-1"+k.machine) || f.shared.owners[id] != k.scheduler {
			f.t.Errorf("lease %s of %s on %q is at %q", id, l.Instance, l.Machine, k.machine)
		}
		for _, s := range l.allocation {
			if !slices.Contains(k.slots, s) {
				f.t.Errorf("lease %s has slot %d, which its machine %q does not have", id, s.Index, k.machine)
			}
		}
		if k.reach == lost && l.State != Unreachable {
			f.t.Errorf("lease %s is %s on a lost machine", id, l.State)
		}
		if k.reach != lost && l.State == Unreachable {
			f.t.Errorf("lease %s is unreachable on a machine that is not lost", id)
		}
	}
	numbers := map[int]bool{}
	for _, s := range k.slots {
		if numbers[s.Index] {
			f.t.Errorf("machine %q has two slots with the number %d", k.machine, s.Index)
		}
		numbers[s.Index] = true
		if k.reach == lost && (s.phase == free || s.phase == warm || s.phase == drained) {
			f.t.Errorf("slot %d of the lost machine %q is %s", s.Index, k.machine, s.phase)
		}
	}
}

// checkLeft: a machine that has left has no open Lease, and each of its Leases is settled.
func (f *fleetWalk) checkLeft(k *walk) {
	f.counts["left"]++
	if len(k.leases) > 0 || len(k.warmStarts) > 0 && len(k.committing()) > 0 {
		f.t.Errorf("machine %q has left with %d open leases", k.machine, len(k.leases))
	}
	for _, l := range k.all {
		k.checkEnded(l)
	}
	if slices.Contains(f.shared.list, k.scheduler) {
		f.t.Errorf("machine %q has left, and its scheduler is still there", k.machine)
	}
	f.walks = slices.DeleteFunc(f.walks, func(o *walk) bool { return o == k })
}
