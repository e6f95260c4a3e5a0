package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
)

// fakeNodes records what each Space was shown.
type fakeNodes struct {
	mu      sync.Mutex
	shown   []string // "SPACE DEVICES", one entry per change
	fail    error
	holders map[gpu.DeviceUUID][]int
}

func (n *fakeNodes) Show(_ context.Context, space string, devices []gpu.DeviceUUID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	if entry := fmt.Sprint(space, " ", devices); len(n.shown) == 0 || n.shown[len(n.shown)-1] != entry {
		n.shown = append(n.shown, entry)
	}
	return nil
}

func (n *fakeNodes) Holders() map[gpu.DeviceUUID][]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.holders
}

// setFail also forgets the changes so far.
func (n *fakeNodes) setFail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail, n.shown = err, nil
}

// want checks the changes since the last call.
func (n *fakeNodes) want(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.shown, want) {
		t.Errorf("%s: shown %q, want %q", when, n.shown, want)
	}
	n.shown = nil
}

func (n *fakeNodes) set(c *Config) { c.Machine.(*Local).Nodes = n }

const (
	shown  = "demo [GPU-fake-0]"
	hidden = "demo []"
)

// TestNodesFollowLeases checks that a Space is shown a Device from /allow to the end of its Lease, and no longer.
func TestNodesFollowLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := &fakeNodes{}
		h := newBrokerHarness(t, nodes.set).run()
		ticket := h.schedule()
		g := h.grant(ticket)
		nodes.want(t, "after a grant without a worker")
		h.processes.Start("demo", 100)
		if err := h.Allow(t.Context(), "demo", g.Lease, 100); err != nil {
			t.Fatal(err)
		}
		nodes.want(t, "after /allow", shown)
		h.release(g)
		nodes.want(t, "after the release", hidden)
		h.active(101)
		nodes.want(t, "in the next call", shown)
		time.Sleep(time.Minute + 3*time.Second)
		nodes.want(t, "after the deadline", hidden)
		waits := h.grant(h.schedule())
		if err := h.Allow(t.Context(), "demo", waits.Lease, 999); !errors.As(err, new(*NotOwnedError)) {
			t.Errorf("/allow of a foreign process: %v", err)
		}
		nodes.want(t, "after a refused /allow")
		h.stop()
	})
}

// TestNodesOfWarmWorkers checks that an idle worker's Device is hidden, and shown before the next call has an answer.
func TestNodesOfWarmWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := &fakeNodes{}
		h := newWarmBrokerHarness(t, nodes.set)
		nodes.want(t, "after the first call", shown, hidden)
		g := h.grant(h.schedule())
		if !g.Idle {
			t.Fatalf("got %+v, want the idle worker", g)
		}
		nodes.want(t, "in a warm call", shown)
		waits := h.schedule()
		h.release(g)
		if g = h.grant(waits); !g.Idle {
			t.Fatalf("got %+v, want the idle worker", g)
		}
		synctest.Wait()
		if last := nodes.shown[len(nodes.shown)-1]; last != shown {
			t.Errorf("a call that has waited is shown %s", last)
		}
		h.release(g)
		h.stop()
	})
}

// TestNodesThatCannotBeShown checks that no call runs without its Device: /allow fails, and an idle worker is replaced.
func TestNodesThatCannotBeShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := &fakeNodes{}
		h := newWarmBrokerHarness(t, nodes.set)
		synctest.Wait()
		broken := errors.New("no answer")
		nodes.setFail(broken)
		g := h.grant(h.schedule())
		if g.Idle || h.processes.Alive(7) {
			t.Errorf("got %+v, old worker running: %v; want a Slot for a new worker", g, h.processes.Alive(7))
		}
		h.processes.Start("demo", 8)
		if err := h.Allow(t.Context(), "demo", g.Lease, 8); !errors.Is(err, broken) {
			t.Errorf("/allow: %v", err)
		}
		h.processes.Exit(8)
		h.release(g)
		h.wantBalance(ada, 10*time.Second, 0)
		if !strings.Contains(h.journal.String(), "hide nodes of device") {
			t.Errorf("the log does not report a Device that stays visible:\n%s", h.journal.String())
		}
		nodes.setFail(nil)
		time.Sleep(2 * inspectInterval)
		nodes.want(t, "afterwards", hidden)
		h.release(h.active(9))
		nodes.want(t, "in the next call", shown, hidden)
		h.stop()
	})
}

// TestHoldersOfNodes checks that an open node without a Lease is a use of the Device, and an open node of a worker is not.
func TestHoldersOfNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := &fakeNodes{holders: map[gpu.DeviceUUID][]int{device0: {7, 77}}}
		h, reported := newUnleasedHarness(t, true, nodes.set)
		h.processes.Start("demo", 77)
		g := h.active(7)
		time.Sleep(3 * inspectInterval)
		synctest.Wait()
		want := Unleased{Device: device0, PID: 77, Space: "demo", Ended: true}
		if len(*reported) != 1 || !(*reported)[0].equals(want) {
			t.Errorf("reported %+v, want once %+v", *reported, want)
		}
		if h.processes.Alive(77) || !h.processes.Alive(7) {
			t.Errorf("the process runs: %v, the worker runs: %v; want the worker alone", h.processes.Alive(77), h.processes.Alive(7))
		}
		h.release(g)
		h.stop()
	})
}
