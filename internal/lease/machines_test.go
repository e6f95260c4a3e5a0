package lease

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease/leasetest"
)

// farMachine is a machine on a network that a test cuts.
type farMachine struct {
	*Local
	name string
	cut  *atomic.Bool
}

func newFarMachine(h *brokerHarness, name string, uuids ...gpu.DeviceUUID) *farMachine {
	h.t.Helper()
	var devices []gpu.Device
	for i, uuid := range uuids {
		devices = append(devices, gpu.Device{UUID: uuid, Index: i, MemoryTotal: 80 << 30})
	}
	return &farMachine{&Local{Pool: h.pool(gputest.NewFakeInventory(devices...)), Processes: leasetest.NewProcesses()}, name, &atomic.Bool{}}
}

func (m *farMachine) Name() string { return m.name }

func (m *farMachine) Clear(ctx context.Context, device gpu.DeviceUUID, self Worker, beside []Worker) error {
	if m.cut.Load() {
		return ErrUnreachable
	}
	return m.Local.Clear(ctx, device, self, beside)
}

func (m *farMachine) End(ctx context.Context, w Worker, grace time.Duration) error {
	if m.cut.Load() {
		return ErrUnreachable
	}
	return m.Local.End(ctx, w, grace)
}

// Wait does not return for a worker that exits while the machine is cut.
func (m *farMachine) Wait(ctx context.Context, w Worker) {
	m.Local.Wait(ctx, w)
	if m.cut.Load() {
		<-ctx.Done()
	}
}

func (m *farMachine) processes() *leasetest.Processes { return m.Processes.(*leasetest.Processes) }

// changed is the machine with other Devices and the same processes.
func (m *farMachine) changed(h *brokerHarness, uuids ...gpu.DeviceUUID) *farMachine {
	again := newFarMachine(h, m.name, uuids...)
	again.Processes = m.Processes
	return again
}

func on(machine, instance string) func(*Request) {
	return func(r *Request) { r.Machine, r.Instance = machine, instance }
}

func (h *brokerHarness) join(m *farMachine, report MachineReport) {
	h.t.Helper()
	if err := h.Join(m, report); err != nil {
		h.t.Fatalf("join of %s: %v", m.name, err)
	}
}

// lose cuts the machine; its last beat was now.
func (h *brokerHarness) lose(m *farMachine) {
	h.t.Helper()
	m.cut.Store(true)
	if err := h.Lost(m.name, time.Now()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *brokerHarness) activeOn(m *farMachine, pid int, alter ...func(*Request)) Grant {
	h.t.Helper()
	g := h.grant(h.schedule(append([]func(*Request){on(m.name, "run-far")}, alter...)...))
	m.processes().StartIn("run-far", "demo", pid)
	if err := h.Allow(h.t.Context(), "demo", g.Lease, pid); err != nil {
		h.t.Fatalf("allow: %v", err)
	}
	return g
}

func (h *brokerHarness) wantState(want State) {
	h.t.Helper()
	synctest.Wait()
	if all := h.List(); len(all) != 1 || all[0].State != want {
		h.t.Errorf("open leases: %+v, want one that is %s", all, want)
	}
}

func (h *brokerHarness) wantSlots(want ...string) {
	h.t.Helper()
	synctest.Wait()
	var got []string
	for _, s := range h.Slots() {
		got = append(got, strings.TrimSpace(s.Machine+" "+string(s.Device)+" "+s.Phase))
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("slots %q, want %q", got, want)
	}
}

// machines runs a test with a Broker and a machine "gpu2" of one Device.
func machines(t *testing.T, test func(h *brokerHarness, far *farMachine), alter ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t, alter...).run()
		far := newFarMachine(h, "gpu2", "GPU-far-0")
		h.join(far, MachineReport{})
		test(h, far)
		h.stop()
	})
}

func TestLeaseIsOnItsMachine(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g, local := h.activeOn(far, 7), h.active(7)
		if g.Device != "GPU-far-0" || local.Device != "GPU-fake-0" {
			h.t.Errorf("leases on %s and %s", g.Device, local.Device)
		}
		h.wantSlots("GPU-fake-0 held", "gpu2 GPU-far-0 held")
		if rows := h.Sampler().Sample(h.t.Context()); len(rows) != 2 {
			h.t.Errorf("devices %+v, want those of both machines", rows)
		}
		second := h.schedule(on("gpu2", "run-far"))
		if f, waits := second.Forecast(); !waits || f.Rank != 0 || f.Start == nil || time.Until(*f.Start) != time.Minute {
			h.t.Errorf("forecast %+v, want the first in a minute", f)
		}
		h.release(local) // of another machine
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 held")
		h.release(g)
		h.grant(second)
		if !far.processes().Alive(7) && h.count(`SELECT count(*) FROM leases WHERE machine = 'gpu2'`) != 2 {
			h.t.Error("the table leases does not name the machine")
		}
		_, err := h.Schedule(h.t.Context(), request(on("gpu3", "run-3")))
		if unknown := (*UnknownMachineError)(nil); !errors.As(err, &unknown) {
			h.t.Errorf("schedule on an unknown machine: %v", err)
		}
		h.wantBalance(ada, 0, time.Minute)
	})
}

// TestLimitOverMachines: a Lease that ends lets one of another machine start.
func TestLimitOverMachines(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g := h.activeOn(far, 7)
		ticket := h.schedule()
		synctest.Wait()
		if ticket.Reason() != Concurrency {
			h.t.Errorf("reason %q, want the limit of the Space", ticket.Reason())
		}
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 held")
		if f, waits := ticket.Forecast(); !waits || f.Start == nil || time.Until(*f.Start) != time.Minute {
			h.t.Errorf("forecast %+v, want the end of the lease on the other machine", f)
		}
		h.release(g)
		start := time.Now()
		h.grant(ticket)
		if waited := time.Since(start); waited > time.Second {
			h.t.Errorf("granted after %v", waited)
		}
	}, func(c *Config) { c.PerSpace = func(string) int { return 1 } })
}

func TestSuspectMachineStartsNothing(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		if err := h.Suspect("gpu2"); err != nil {
			h.t.Fatal(err)
		}
		ticket := h.schedule(on("gpu2", "run-far"))
		synctest.Wait()
		time.Sleep(10 * time.Second)
		h.wantState(Waiting)
		if err := h.Reachable("gpu2"); err != nil {
			h.t.Fatal(err)
		}
		h.grant(ticket)
		if err := h.Suspect("gpu3"); err == nil {
			h.t.Error("an unknown machine is suspect")
		}
	})
}

// TestLostMachine lets a machine be lost 10 s after the /allow, and the silence last for 20 s.
func TestLostMachine(t *testing.T) {
	for name, row := range map[string]struct {
		report func(g Grant, w Worker) MachineReport
		state  State
		reason string
		want   time.Duration
	}{
		"its worker runs": {
			report: func(g Grant, w Worker) MachineReport { return MachineReport{Open: []OpenLease{{g.Lease, w}}} },
		},
		"released there": {
			report: func(g Grant, _ Worker) MachineReport {
				return MachineReport{Ended: []EndedLease{{g.Lease, Released, "released", 12 * time.Second}}}
			}, state: Released, reason: "released", want: 12 * time.Second,
		},
		"longer than possible": {
			report: func(g Grant, _ Worker) MachineReport {
				return MachineReport{Ended: []EndedLease{{g.Lease, Expired, "deadline", time.Hour}}}
			}, state: Expired, reason: "deadline", want: 30 * time.Second,
		},
		"nobody knows when": {
			report: func(g Grant, _ Worker) MachineReport {
				return MachineReport{Ended: []EndedLease{{g.Lease, Revoked, "agent restarted", -1}}}
			}, state: Revoked, reason: "agent restarted", want: 10 * time.Second,
		},
		"unknown there": {
			report: func(Grant, Worker) MachineReport { return MachineReport{} },
			state:  Revoked, reason: reasonNoRecord, want: 10 * time.Second,
		},
		"another worker": {
			report: func(g Grant, _ Worker) MachineReport {
				return MachineReport{Open: []OpenLease{{g.Lease, Worker{99, 99}}}}
			}, state: Unreachable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			machines(t, func(h *brokerHarness, far *farMachine) {
				g := h.activeOn(far, 7)
				waits := h.schedule(on("gpu2", "run-far"))
				time.Sleep(10 * time.Second)
				worker := Worker{PID: 7, Start: 1}
				h.lose(far)
				if _, err := waits.Wait(h.t.Context()); !errors.Is(err, ErrGone) {
					h.t.Errorf("the waiting lease got %v", err)
				}
				h.wantState(Unreachable)
				time.Sleep(20 * time.Second)
				h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 held")
				far.cut.Store(false)
				h.join(far, row.report(g, worker))
				switch row.state {
				case "":
					h.wantState(Active)
					h.release(g)
					h.wantLast(Released, "released", 30*time.Second)
				case Unreachable:
					h.wantState(Unreachable)
					time.Sleep(time.Minute)
					synctest.Wait()
					h.wantLast(Revoked, ReasonMachineLost, 10*time.Second)
				default:
					synctest.Wait()
					h.wantLast(row.state, row.reason, row.want)
					h.wantBalance(ada, row.want, 0)
				}
				time.Sleep(time.Second)
				h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 free")
				if far.processes().Alive(7) {
					h.t.Error("the worker of an ended lease runs")
				}
			})
		})
	}
}

// TestLostMachineIsSettledOnce: the lease ends 7 s after its deadline, charged up to the last beat; what the machine says later
// changes nothing. Its Slot is lent again only after the machine is back.
func TestLostMachineIsSettledOnce(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g := h.activeOn(far, 7)
		time.Sleep(10 * time.Second)
		h.lose(far)
		time.Sleep(50*time.Second + 7*time.Second - time.Millisecond)
		h.wantState(Unreachable)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		h.wantLast(Revoked, ReasonMachineLost, 10*time.Second)
		h.wantBalance(ada, 10*time.Second, 0)
		time.Sleep(time.Hour)
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 busy")
		far.cut.Store(false)
		h.join(far, MachineReport{Open: []OpenLease{{g.Lease, Worker{PID: 7, Start: 1}}}, Ended: []EndedLease{{g.Lease, Released, "released", time.Minute}}})
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 free")
		h.wantBalance(ada, 10*time.Second, 0)
		if far.processes().Alive(7) {
			h.t.Error("the worker of the settled lease runs")
		}
		if !strings.Contains(h.journal.String(), "machine reported the end of a settled lease") {
			h.t.Error("the late report is not in the log")
		}
	})
}

// TestCancelOnLostMachine: an end by the visitor is the first to settle the lease.
func TestCancelOnLostMachine(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		h.activeOn(far, 7)
		time.Sleep(10 * time.Second)
		h.lose(far)
		time.Sleep(10 * time.Second)
		h.Cancelled("event-1")
		synctest.Wait()
		h.wantLast(Revoked, "cancelled", 10*time.Second)
	})
}

// TestGrantOnLostMachine: a grant without an /allow is returned whole, and counts as no run.
func TestGrantOnLostMachine(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g := h.grant(h.schedule(on("gpu2", "run-far")))
		h.lose(far)
		synctest.Wait()
		h.wantLast(Revoked, ReasonMachineLost, 0)
		h.wantBalance(ada, 0, 0)
		if err := h.Allow(h.t.Context(), "demo", g.Lease, 7); !errors.Is(err, ErrUnknown) {
			h.t.Errorf("allow of a lease that has ended: %v", err)
		}
	})
}

// TestIdleWorkerOfLostMachine is not reused: nobody knows whether it runs.
func TestIdleWorkerOfLostMachine(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		h.release(h.activeOn(far, 7))
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 warm")
		h.lose(far)
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 busy")
		far.cut.Store(false)
		h.join(far, MachineReport{})
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 free")
		if far.processes().Alive(7) {
			h.t.Error("the idle worker runs")
		}
	}, func(c *Config) { c.WarmFor = time.Hour })
}

func TestPart(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g, left := h.activeOn(far, 7), make(chan error, 1)
		waits := h.schedule(on("gpu2", "run-far"))
		go func() { left <- h.Part(h.t.Context(), "gpu2") }()
		if _, err := waits.Wait(h.t.Context()); !errors.Is(err, ErrGone) {
			h.t.Errorf("the waiting lease got %v", err)
		}
		time.Sleep(10 * time.Second)
		if _, err := h.schedule(on("gpu2", "run-far")).Wait(h.t.Context()); !errors.Is(err, ErrGone) {
			h.t.Errorf("a lease on a machine that leaves got %v", err)
		}
		time.Sleep(10 * time.Second)
		h.release(g)
		if err := <-left; err != nil {
			h.t.Error(err)
		}
		h.wantLast(Released, "released", 20*time.Second)
		h.wantSlots("GPU-fake-0 free")
		if err := h.Part(h.t.Context(), "gpu2"); err == nil {
			h.t.Error("a machine left twice")
		}
		if err := h.Part(h.t.Context(), ""); err == nil {
			h.t.Error("the host's own machine left")
		}
		if err := h.Lost("", time.Now()); err == nil {
			h.t.Error("the host's own machine is lost")
		}
		h.join(newFarMachine(h, "gpu2", "GPU-far-0"), MachineReport{})
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 free")
	})
}

// TestPartOfLostMachine settles its lease at once.
func TestPartOfLostMachine(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		h.activeOn(far, 7)
		time.Sleep(10 * time.Second)
		h.lose(far)
		time.Sleep(10 * time.Second)
		if err := h.Part(h.t.Context(), "gpu2"); err != nil {
			h.t.Fatal(err)
		}
		synctest.Wait()
		h.wantLast(Revoked, ReasonMachineLost, 10*time.Second)
		h.wantSlots("GPU-fake-0 free")
	})
}

// TestDevicesChange: MIG instances that are cut anew are lent as they come, and what runs on an old one finishes.
func TestDevicesChange(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		g := h.activeOn(far, 7)
		again := far.changed(h, "MIG-1", "MIG-2")
		h.join(again, MachineReport{})
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 held", "gpu2 MIG-1 free", "gpu2 MIG-2 free")
		if second := h.grant(h.schedule(on("gpu2", "run-far"))); second.Device != "MIG-1" || second.Slot != 1 {
			h.t.Errorf("grant %+v, want MIG-1 under a number that was not taken", second)
		}
		h.release(g)
		time.Sleep(reclaimTimeout + time.Second) // the driver does not know the old Device any more
		h.wantSlots("GPU-fake-0 free", "gpu2 MIG-1 held", "gpu2 MIG-2 free")
	})
}

// TestDrainSurvivesDevice: the drain of a Device applies when it comes back.
func TestDrainSurvivesDevice(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		if err := h.Drain(h.t.Context(), "GPU-far-0", Drain{Reason: "fan"}); err != nil {
			h.t.Fatal(err)
		}
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 drained")
		h.join(far.changed(h), MachineReport{})
		h.wantSlots("GPU-fake-0 free")
		h.join(far, MachineReport{})
		h.wantSlots("GPU-fake-0 free", "gpu2 GPU-far-0 drained")
	})
}

// TestDeviceOfTwoMachines: a Device that another machine lends is refused, unless that one is lost.
func TestDeviceOfTwoMachines(t *testing.T) {
	machines(t, func(h *brokerHarness, far *farMachine) {
		other := newFarMachine(h, "gpu3", "GPU-far-0")
		taken := (*DeviceTakenError)(nil)
		if err := h.Join(other, MachineReport{}); !errors.As(err, &taken) || taken.Machine != "gpu2" {
			h.t.Errorf("join of a second machine with the device: %v", err)
		}
		h.lose(far)
		h.join(other, MachineReport{})
		if g := h.grant(h.schedule(on("gpu3", "run-3"))); g.Device != "GPU-far-0" {
			h.t.Errorf("grant %+v", g)
		}
		if err := h.Join(far, MachineReport{}); !errors.As(err, &taken) || taken.Machine != "gpu3" {
			h.t.Errorf("join of the first machine: %v", err)
		}
	})
}

// TestCheckBeforeLoss: a check that began before the machine was lost lends nothing after it has joined.
func TestCheckBeforeLoss(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.schedule()
	h.onLost(h.clock)
	h.onJoin([]gpu.Slot{h.slots[0].Slot}, MachineReport{})
	second := h.schedule()
	a := h.checks[0]
	h.checks = nil
	h.onChecked(a, nil)
	h.want(second, Waiting)
	h.wantPhase(0, busy)
	h.advance(recheckInterval)
	h.passChecks()
	h.want(second, Granted)
}

// TestFirstJoinEndsUnknownLeases: a front has crashed before the commit of a Lease that the machine had armed already.
func TestFirstJoinEndsUnknownLeases(t *testing.T) {
	machines(t, func(h *brokerHarness, _ *farMachine) {
		other := newFarMachine(h, "gpu3", "GPU-other-0")
		worker := Worker{PID: 8, Start: other.processes().StartIn("run-other", "demo", 8)}
		guard := newFakeAgent(h.t, other.processes())
		other.Guard = guard
		guard.Arm("uncommitted", worker, time.Minute)
		h.join(other, guard.connect())
		synctest.Wait()
		if other.processes().Alive(8) || guard.known() != 0 {
			h.t.Errorf("the worker runs: %v, and %d leases are armed", other.processes().Alive(8), guard.known())
		}
	})
}
