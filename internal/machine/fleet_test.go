package machine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/lease"
	"spacehost/internal/link"
)

// nodeRig is a rig with a Node that connects when the test wants.
type nodeRig struct {
	*rig
	*cluster
	node   *Node
	broker *fakeBroker
	local  lease.Local
	t      *testing.T
}

func newNodeRig(t *testing.T) *nodeRig {
	r, local := newRig(t)
	n := &nodeRig{rig: r, node: runNode(t, *local), local: *local, broker: newFakeBroker(), t: t}
	n.cluster = newCluster(t, n.broker)
	return n
}

// dial connects the node, and returns its link.
func (n *nodeRig) dial() *link.Link {
	n.t.Helper()
	l, _, err := n.connect(n.node, "gpu2")
	if err != nil {
		n.t.Fatal(err)
	}
	n.machine = n.broker.machine("gpu2")
	return l
}

func (n *nodeRig) wantNotes(want ...string) {
	n.t.Helper()
	synctest.Wait()
	if got := n.broker.notes(); !slices.Equal(got, want) {
		n.t.Errorf("broker: %q, want %q", got, want)
	}
}

func (n *nodeRig) wantState(want State) {
	n.t.Helper()
	synctest.Wait()
	all := n.Nodes()
	if len(all) != 1 || all[0].State != want {
		n.t.Errorf("nodes %+v, want one that is %s", all, want)
	}
}

func withNode(t *testing.T, test func(n *nodeRig)) {
	synctest.Test(t, func(t *testing.T) { test(newNodeRig(t)) })
}

func TestLateBeats(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial()
		n.wantState(Connected)
		n.proxy.Partition()
		time.Sleep(5 * time.Second)
		n.wantState(Suspect)
		n.wantNotes("join gpu2 with 4 slots", "suspect gpu2")
		n.proxy.Heal()
		time.Sleep(2 * time.Second)
		n.wantState(Connected)
		n.proxy.Partition()
		time.Sleep(13 * time.Second)
		n.wantState(Suspect)
		time.Sleep(3 * time.Second)
		n.wantState(Lost)
		n.wantNotes("join gpu2 with 4 slots", "suspect gpu2", "reachable gpu2", "suspect gpu2", "suspect gpu2", "lost gpu2")
		if v := n.Nodes()[0]; time.Since(v.Beat) < 15*time.Second || time.Since(v.Beat) > 18*time.Second || v.Hello.Run != n.node.run || len(v.Hello.Slots) != 4 {
			n.t.Errorf("view %+v", v)
		}
		n.proxy.Heal()
		n.dial()
		n.wantState(Connected)
	})
}

func TestEndOfLink(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial().Close()
		n.wantState(Suspect)
		time.Sleep(14 * time.Second)
		n.wantState(Suspect)
		n.dial().Close() // the broker decides by the report, although nothing was lost for long
		n.wantNotes("join gpu2 with 4 slots", "suspect gpu2", "lost gpu2", "join gpu2 with 4 slots", "suspect gpu2")
		time.Sleep(15 * time.Second)
		n.wantState(Lost)
		time.Sleep(time.Minute)
		n.wantNotes("join gpu2 with 4 slots", "suspect gpu2", "lost gpu2", "join gpu2 with 4 slots", "suspect gpu2", "lost gpu2")
	})
}

func TestNewLinkReplacesTheFormer(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		first := n.dial()
		n.dial()
		synctest.Wait()
		got := slices.DeleteFunc(n.broker.notes(), func(note string) bool { return note == "suspect gpu2" }) // if the end was seen first
		if want := []string{"join gpu2 with 4 slots", "lost gpu2", "join gpu2 with 4 slots"}; !slices.Equal(got, want) {
			n.t.Errorf("broker: %q, want %q", got, want)
		}
		if !isDone(first) {
			n.t.Error("the former link is open")
		}
		time.Sleep(time.Minute)
		n.wantState(Connected)
	})
}

// TestHelloOfAnEndedLink: the greeting of a link may be handled after that of the next one.
func TestHelloOfAnEndedLink(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial()
		first := n.server.Link("gpu2")
		second := n.dial()
		synctest.Wait()
		if first == nil || !isDone(first) {
			n.t.Fatal("the first link was not replaced")
		}
		if err := n.join(first, Hello{Protocol: Protocol}); !errors.Is(err, lease.ErrUnreachable) {
			n.t.Errorf("error %v, want ErrUnreachable", err)
		}
		synctest.Wait()
		if isDone(second) {
			n.t.Error("the newer link was closed")
		}
		n.wantState(Connected)
	})
}

func TestRefusedNodes(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		taken := &lease.DeviceTakenError{Device: "GPU-fake-0", Machine: "gpu1"}
		n.broker.refuse = taken
		_, _, err := n.connect(n.node, "gpu2")
		var remote *link.RemoteError
		if !errors.As(err, &remote) || remote.Code != link.CodeRefused || remote.Text != taken.Error() {
			n.t.Errorf("error %v", err)
		}
		if all := n.Nodes(); len(all) != 0 {
			n.t.Errorf("nodes %+v", all)
		}
		n.dial().Close() // the other one has left
		n.broker.refuse = taken
		if _, _, err := n.connect(n.node, "gpu2"); err == nil {
			n.t.Error("not refused")
		}
		n.wantState(Lost)
	})
}

func TestHelloThatCannotBe(t *testing.T) {
	slot := func(index int, uuid, name string) gpu.Slot {
		return gpu.Slot{Index: index, Device: gpu.Device{UUID: gpu.DeviceUUID(uuid), Name: name}}
	}
	for want, hello := range map[string]any{
		"message of the other end":   "hello",
		"protocol 1, this front 2":   Hello{Protocol: 1},
		`""`:                         Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, "", "L4")}}},
		`"GPU-\n1"`:                  Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, "GPU-\n1", "L4")}}},
		`of "L\x1b[4"`:               Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, "GPU-1", "L\x1b[4")}}},
		"slot 0 is listed twice":     Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, "GPU-1", "L4"), slot(0, "GPU-2", "L4")}}},
		"slot -1":                    Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(-1, "GPU-1", "L4")}}},
		"GPU-1 is listed twice":      Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, "GPU-1", "L4"), slot(1, "GPU-2", "L4"), slot(2, "GPU-1", "L4")}}},
		"1025 slots, at most 1024":   Hello{Protocol: Protocol, Devices: Devices{Slots: make([]gpu.Slot, 1025)}},
		"install the version of the": Hello{Protocol: Protocol, Devices: Devices{Slots: []gpu.Slot{slot(0, strings.Repeat("GPU-", 100), "L4")}}},
	} {
		broker := newFakeBroker()
		fleet := NewFleet(broker, nil)
		body, err := json.Marshal(hello)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Hello(&link.Link{}, body); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
		if len(broker.notes()) != 0 || len(fleet.Nodes()) != 0 {
			t.Errorf("%s: the node has joined", want)
		}
	}
}

func TestChangedDevices(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial()
		pool, err := gpu.NewPool(n.t.Context(), gputest.NewFakeInventory(gputest.Devices(3)...), 1)
		if err != nil {
			n.t.Fatal(err)
		}
		n.node.Renew(pool)
		n.wantNotes("join gpu2 with 4 slots", "join gpu2 with 3 slots")
		n.wantState(Connected)
		n.proxy.Partition()
		time.Sleep(5 * time.Second)
		n.broker.refuse = &lease.DeviceTakenError{Device: "GPU-fake-0", Machine: "gpu1"}
		n.node.Renew(n.local.Pool)
		n.proxy.Heal()
		time.Sleep(2 * time.Second)
		n.wantNotes("join gpu2 with 4 slots", "join gpu2 with 3 slots", "suspect gpu2", "reachable gpu2")
		if got := len(n.Nodes()[0].Hello.Slots); got != 3 {
			n.t.Errorf("%d slots, want those that the broker has", got)
		}
	})
}

func TestForget(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		l := n.dial()
		waited := make(chan struct{})
		go func() { defer close(waited); n.machine.Wait(context.Background(), n.worker(7)) }()
		if err := n.Forget(n.t.Context(), "gpu2"); err != nil {
			n.t.Fatal(err)
		}
		<-waited
		<-l.Done()
		if len(n.Nodes()) != 0 {
			n.t.Error("the node is still there")
		}
		n.wantNotes("join gpu2 with 4 slots", "lost gpu2", "part gpu2")
		if err := n.Forget(n.t.Context(), "gpu9"); err != nil {
			n.t.Errorf("a node that never connected: %v", err)
		}
		n.dial()
		n.wantState(Connected)
	})
}

func TestUnreachable(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial()
		ctx, m, w := n.t.Context(), n.machine, n.worker(7)
		n.inventory.SetProcesses("GPU-fake-0", gpu.Process{PID: 7, Memory: 1 << 30})
		if rows := m.Status(ctx); rows[0].MemoryUsed == 0 {
			n.t.Errorf("status %+v", rows)
		}
		exited := make(chan struct{})
		go func() { defer close(exited); m.Wait(ctx, w) }()
		synctest.Wait()

		n.proxy.Partition() // a call under way ends with the link
		ended := make(chan error, 1)
		go func() { ended <- m.Clear(ctx, "GPU-fake-0", w, nil) }()
		time.Sleep(5 * time.Second)
		if rows := m.Status(ctx); len(rows) != 2 || !errors.Is(rows[0].Cause, lease.ErrUnreachable) || rows[0].MemoryUsed != 0 || rows[0].Name == "" {
			n.t.Errorf("status of a suspect node %+v", rows)
		}
		if err := <-ended; !errors.Is(err, lease.ErrUnreachable) {
			n.t.Errorf("clear: %v", err)
		}
		began := time.Now()
		_, claim := m.Claim(ctx, "run-1", 7)
		for what, err := range map[string]error{
			"clear": m.Clear(ctx, "GPU-fake-0", w, nil), "claim": claim, "occupy": m.Occupy("GPU-fake-0", w), "resume": m.Resume(ctx, lease.Resumption{Worker: w})(), "arm": m.BeginArm(ctx, "one", w, time.Hour)(),
			"end": m.End(ctx, w, 0), "show": m.Show(ctx, "demo", nil),
		} {
			if !errors.Is(err, lease.ErrUnreachable) || !strings.Contains(err.Error(), "gpu2") {
				n.t.Errorf("%s: %v", what, err)
			}
		}
		m.Confine("run-1", w)
		m.Arm("one", w, time.Minute)
		m.Disarm("one")
		if m.Freeze(ctx, w) || m.Holders(ctx) != nil || m.Outsiders(ctx, []lease.ProcessUse{{Device: "GPU-fake-0"}}, nil) != nil || m.Describe(ctx, 7) != (lease.ProcessInfo{}) {
			n.t.Error("an unreachable node answers")
		}
		if time.Since(began) != 0 {
			n.t.Errorf("the calls took %v", time.Since(began))
		}
		select {
		case <-exited:
			n.t.Error("the worker of an unreachable node counts as exited")
		default:
		}
		n.proxy.Heal()
		n.dial()
		n.processes.Exit(7)
		<-exited
	})
}

func TestSlowNodeKeepsItsReadings(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.dial()
		before := n.machine.Status(n.t.Context())
		n.inventory.SetHook(func(ctx context.Context, _ gpu.DeviceUUID) error { <-ctx.Done(); return context.Cause(ctx) })
		began := time.Now()
		if rows := n.machine.Status(n.t.Context()); time.Since(began) != callTimeout || rows[0].MemoryUsed != before[0].MemoryUsed || rows[0].Error != "" {
			n.t.Errorf("after %v: %+v", time.Since(began), rows)
		}
		if rows := n.machine.Status(n.t.Context()); !errors.Is(rows[0].Cause, lease.ErrUnreachable) {
			n.t.Errorf("readings of %v ago: %+v", time.Since(began), rows)
		}
	})
}

func TestRoundTrips(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		_, counts, err := n.connect(n.node, "gpu2")
		if err != nil {
			n.t.Fatal(err)
		}
		n.machine = n.broker.machine("gpu2")
		w := n.worker(7)
		if err := n.machine.Clear(n.t.Context(), "GPU-fake-0", lease.Worker{}, nil); err != nil {
			n.t.Fatal(err)
		}
		n.machine.Arm("one", w, time.Minute)
		n.machine.Disarm("one")
		n.machine.Confine("run-1", w)
		_ = n.machine.Occupy("GPU-fake-0", w)
		n.wantError(n.machine.BeginArm(n.t.Context(), "two", w, time.Minute)(), nil)
		n.wantError(n.machine.Resume(n.t.Context(), lease.Resumption{Lease: "three", Worker: w, Device: "GPU-fake-0", Left: time.Minute})(), nil)
		synctest.Wait()
		if want := (map[string]int{opArm: 1, opDisarm: 1, opConfine: 1, opOccupy: 1}); !maps.Equal(counts.calls, map[string]int{opClear: 1, opArm: 1, opResume: 1}) || !maps.Equal(counts.tells, want) {
			n.t.Errorf("calls %v, messages %v", counts.calls, counts.tells)
		}
	})
}

func TestXidsOfAbsentFront(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		n.inventory.reports <- xid{"GPU-fake-0", 79}
		synctest.Wait()
		n.dial()
		synctest.Wait() // it arrives before the broker watches
		got := make(chan xid, 10)
		ctx, stop := context.WithCancel(n.t.Context())
		defer stop()
		go func() {
			_ = n.machine.Watch(ctx, func(device gpu.DeviceUUID, x gpu.Xid) { got <- xid{device, x} })
		}()
		if x := <-got; x != (xid{"GPU-fake-0", 79}) {
			n.t.Errorf("reported %+v", x)
		}
		n.inventory.reports <- xid{"GPU-of-another", 79}
		synctest.Wait()
		if len(got) != 0 {
			n.t.Errorf("an error of another machine's GPU was reported: %v", <-got)
		}
	})
}

func TestReadingsOfOtherDevicesAreDropped(t *testing.T) {
	d := Devices{Slots: []gpu.Slot{{Device: gpu.Device{UUID: "GPU-1", Name: "L4", MemoryTotal: 24}}}}
	rows := d.ownStatus([]gpu.DeviceStatus{
		{Device: gpu.Device{UUID: "GPU-1", Name: "\x1b[31mL4", MemoryTotal: 1 << 60}, Error: "no\nmemory"},
		{Device: gpu.Device{UUID: "GPU-2"}},
		{Device: gpu.Device{Index: 3}, Error: "not listed"},
	})
	if len(rows) != 2 || rows[0].Device != d.Slots[0].Device || rows[0].Error != "no memory" || rows[1].Error != "not listed" {
		t.Errorf("rows %+v", rows)
	}
	if all := d.ownOutsiders([]lease.Outsider{{ProcessUse: lease.ProcessUse{Device: "GPU-2"}}}); len(all) != 0 {
		t.Errorf("outsiders %+v", all)
	}
}

func TestRestartedAgentHasNoRecord(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		l := n.dial()
		w := n.worker(7)
		n.machine.Arm("kept", w, time.Minute)
		n.machine.Arm("disarmed", w, time.Minute)
		n.machine.Disarm("disarmed")
		synctest.Wait()
		l.Close()
		n.dial()
		if r := n.broker.reports[1]; len(r.Open) != 1 || r.Open[0] != (lease.OpenLease{Lease: "kept", Worker: w}) || len(r.Ended) != 0 {
			n.t.Errorf("report of the same agent: %+v", r)
		}
		n.node = runNode(n.t, n.local)
		n.dial()
		if r := n.broker.reports[2]; len(r.Open) != 0 || len(r.Ended) != 1 || r.Ended[0] != (lease.EndedLease{Lease: "kept", State: lease.Revoked, Reason: "agent restarted", Used: -1}) {
			n.t.Errorf("report of another agent: %+v", r)
		}
	})
}

func TestUnknownMessages(t *testing.T) {
	withNode(t, func(n *nodeRig) {
		l := n.dial()
		front := n.server.Link("gpu2")
		err := front.Call(n.t.Context(), "dance", nil, nil)
		if err == nil || !strings.Contains(err.Error(), `"dance"`) {
			n.t.Errorf("error %v", err)
		}
		if err := front.Call(n.t.Context(), opClear, "text", nil); err == nil {
			n.t.Error("a call that cannot be read is answered")
		}
		for _, op := range []string{"dance", opArm, opDisarm, opWatch, opConfine, opOccupy} {
			_ = front.Tell(op, 5)
			_ = front.Tell(op, []int{1})
		}
		for _, op := range []string{"dance", opExit, opXid, opDevices} {
			_ = l.Tell(op, 5)
		}
		n.wantState(Connected)
	})
}
