package lease

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease/leasetest"
)

// fakeAgent outlasts the hosts of a test, as an agent does. While no host is connected, it ends each worker 2 s after the deadline of
// its Lease.
type fakeAgent struct {
	t         *testing.T
	processes *leasetest.Processes

	mu     sync.Mutex
	armed  map[string]*armedLease
	ended  []EndedLease
	timers []*time.Timer
	counts map[string]int // Arm and Disarm, by "arm lease" and "disarm lease"
}

type armedLease struct {
	worker       Worker
	since, until time.Time
}

var _ Guard = (*fakeAgent)(nil)

func newFakeAgent(t *testing.T, processes *leasetest.Processes) *fakeAgent {
	return &fakeAgent{t: t, processes: processes, armed: map[string]*armedLease{}, counts: map[string]int{}}
}

// Arm implements Guard.
func (a *fakeAgent) Arm(lease string, w Worker, left time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts["arm "+lease]++
	if a.armed[lease] == nil {
		a.armed[lease] = &armedLease{since: time.Now()}
	}
	a.armed[lease].worker, a.armed[lease].until = w, time.Now().Add(left)
}

// Disarm implements Guard.
func (a *fakeAgent) Disarm(lease string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts["disarm "+lease]++
	a.forget(lease)
}

func (a *fakeAgent) forget(lease string) {
	delete(a.armed, lease)
	var others []EndedLease
	for _, e := range a.ended {
		if e.Lease != lease {
			others = append(others, e)
		}
	}
	a.ended = others
}

// release handles that no host is connected any more.
func (a *fakeAgent) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, l := range a.armed {
		a.timers = append(a.timers, time.AfterFunc(time.Until(l.until.Add(deadlineGrace)), func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.processes.End(l.worker.PID, l.worker.Start, 0)
			delete(a.armed, id)
			a.ended = append(a.ended, EndedLease{Lease: id, State: Expired, Reason: "deadline", Used: time.Since(l.since)})
		}))
	}
}

// connect handles that a host has connected.
func (a *fakeAgent) connect() (report MachineReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.timers {
		t.Stop()
	}
	a.timers = nil
	for id, l := range a.armed {
		report.Open = append(report.Open, OpenLease{id, l.worker})
	}
	report.Ended = append(report.Ended, a.ended...)
	return report
}

// known is the number of Leases that the agent still knows.
func (a *fakeAgent) known() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.armed) + len(a.ended)
}

func (a *fakeAgent) count(what, lease string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts[what+" "+lease]
}

// crashableMachine is the own machine of one host. Once that host has crashed, nothing that it does reaches the machine.
type crashableMachine struct {
	*Local
	crashed atomic.Bool
}

func (m *crashableMachine) End(ctx context.Context, w Worker, grace time.Duration) error {
	if m.crashed.Load() {
		return nil
	}
	return m.Local.End(ctx, w, grace)
}

func (m *crashableMachine) Arm(lease string, w Worker, left time.Duration) {
	if !m.crashed.Load() {
		m.Local.Arm(lease, w, left)
	}
}

func (m *crashableMachine) Disarm(lease string) {
	if !m.crashed.Load() {
		m.Local.Disarm(lease)
	}
}

// keptHarness is a sequence of hosts on one machine with an agent.
type keptHarness struct {
	*brokerHarness
	agent   *fakeAgent
	machine *crashableMachine // of the present host
	kept    []string          // the instances that the agent keeps
}

// newKeptHarness has a running host with these Devices, and keeps idle workers for 5 min.
func newKeptHarness(t *testing.T, devices int) *keptHarness {
	h := &keptHarness{brokerHarness: newBrokerHarness(t), kept: []string{"run-1"}}
	h.inventory = gputest.NewFakeInventory(gputest.Devices(devices)...)
	h.agent = newFakeAgent(t, h.processes)
	h.next()
	return h
}

// next starts the next host.
func (h *keptHarness) next() { h.nextWith(h.agent.connect()) }

func (h *keptHarness) nextWith(report MachineReport) {
	h.t.Helper()
	h.machine = &crashableMachine{Local: &Local{Pool: h.pool(h.inventory), Processes: h.processes, Guard: h.agent}}
	h.Broker = h.newBroker(func(c *Config) { c.Machine, c.WarmFor = h.machine, 5*time.Minute })
	if err := h.Recover(h.t.Context(), Kept{Instances: h.kept, Report: report}); err != nil {
		h.t.Fatalf("recover: %v", err)
	}
	h.run()
	synctest.Wait()
}

// crash ends the host without a trace: it reaches neither the database nor the machine nor the agent any more.
func (h *keptHarness) crash() {
	h.t.Helper()
	synctest.Wait()
	h.machine.crashed.Store(true)
	h.db.Close()
	h.cancel()
	h.openDatabase()
	h.agent.release()
}

// leave ends the host, which leaves its Spaces with the agent.
func (h *keptHarness) leave() {
	h.t.Helper()
	h.Keep()
	h.stop()
	h.agent.release()
}

// onDevice sets the driver's list of the processes on the first Device.
func (h *keptHarness) onDevice(pids ...int) {
	var all []gpu.Process
	for _, pid := range pids {
		all = append(all, gpu.Process{PID: pid, Memory: 1 << 30})
	}
	h.inventory.SetProcesses("GPU-fake-0", all...)
}
