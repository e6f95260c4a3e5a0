package machine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/lease/leasetest"
	"spacehost/migrations"
	"spacehost/quota"
)

// front is a Broker with a real database, and a cluster. It runs in a bubble of testing/synctest.
type front struct {
	*cluster
	*lease.Broker
	t    *testing.T
	db   *sql.DB
	stop func()
}

var ada = identity.Identity{Kind: identity.User, Name: "ada", Tier: "free"}

func newFront(t *testing.T) *front {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &front{t: t, db: db}
	own, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(gpu.Device{UUID: "GPU-own"}), 1)
	if err != nil {
		t.Fatal(err)
	}
	f.Broker, err = lease.New(lease.Config{DB: db, Ledger: quota.New(db, quota.Config{}), Machine: &lease.Local{Pool: own, Processes: leasetest.NewProcesses()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) }) // ends with ctx
	f.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(f.stop)
	f.cluster = newCluster(t, f.Broker)
	return f
}

// farNode is the node of a test, with n Devices.
type farNode struct {
	*Node
	processes *leasetest.Processes
	name      string
}

func newFarNode(t *testing.T, name string, devices ...gpu.Device) *farNode {
	t.Helper()
	pool, err := gpu.NewPool(t.Context(), gputest.NewFakeInventory(devices...), 1)
	if err != nil {
		t.Fatal(err)
	}
	processes := leasetest.NewProcesses()
	return &farNode{runNode(t, lease.Local{Pool: pool, Processes: processes}), processes, name}
}

func (f *front) dial(n *farNode) {
	f.t.Helper()
	if _, _, err := f.connect(n.Node, n.name); err != nil {
		f.t.Fatal(err)
	}
}

// active returns a Lease. pid is that of its worker.
func (f *front) active(n *farNode, pid int, declared time.Duration) lease.Grant {
	f.t.Helper()
	ticket, err := f.Schedule(f.t.Context(), lease.Request{Machine: n.name, Space: "demo", Instance: "run-1", Event: fmt.Sprint("event-", pid), Payer: ada,
		Tier: quota.Tier{Name: "free", Quota: time.Hour, Authenticated: "regular"}, Task: "draw", Function: "draw", Declared: declared})
	if err != nil {
		f.t.Fatal(err)
	}
	g, err := ticket.Wait(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	n.processes.StartIn("run-1", "demo", pid)
	if err := f.Allow(f.t.Context(), "demo", g.Lease, pid); err != nil {
		f.t.Fatal(err)
	}
	return g
}

func (f *front) wantOpen(want ...lease.State) {
	f.t.Helper()
	synctest.Wait()
	var got []lease.State
	for _, s := range f.List() {
		got = append(got, s.State)
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("open leases %v, want %v", got, want)
	}
}

// wantLast checks the Lease that ended last, and that each Lease was settled once.
func (f *front) wantLast(state lease.State, reason string, charged time.Duration) {
	f.t.Helper()
	synctest.Wait()
	all, err := f.Past(f.t.Context(), 1)
	if err != nil || len(all) != 1 {
		f.t.Fatalf("past leases %+v, %v", all, err)
	}
	got := all[0]
	missing := charged - time.Duration(got.ChargedSeconds*float64(time.Second)) // a beat is at most a second old
	if got.State != state || got.Reason != reason || missing < -50*time.Millisecond || missing > time.Second {
		f.t.Errorf("ended %s, %q, charged %g s; want %s, %q, %v", got.State, got.Reason, got.ChargedSeconds, state, reason, charged)
	}
	f.wantSettledOnce()
}

func (f *front) wantSettledOnce() {
	f.t.Helper()
	var leases, settled int
	err := f.db.QueryRowContext(f.t.Context(), `SELECT count(*), coalesce(sum((SELECT count(*) FROM ledger s WHERE s.lease_id = l.id AND s.kind = 'settle') = 1), 0)
		FROM leases l WHERE ended_at IS NOT NULL`).Scan(&leases, &settled)
	if err != nil || leases != settled {
		f.t.Errorf("%d of %d ended leases were settled once, %v", settled, leases, err)
	}
}

func onNode(t *testing.T, test func(f *front, n *farNode)) {
	synctest.Test(t, func(t *testing.T) {
		f, n := newFront(t), newFarNode(t, "gpu2", gputest.Devices(2)...)
		f.dial(n)
		test(f, n)
		f.stop()
	})
}

func TestLeaseOnNode(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		g := f.active(n, 7, time.Minute)
		f.wantOpen(lease.Active)
		if r := n.guard.Report(); len(r.Open) != 1 || r.Open[0].Lease != g.Lease {
			f.t.Errorf("the guard of the node knows %+v", r)
		}
		time.Sleep(10 * time.Second)
		if err := f.Release(f.t.Context(), "demo", g.Lease, false); err != nil {
			f.t.Fatal(err)
		}
		f.wantLast(lease.Released, quota.ReasonReleased, 10*time.Second)
		if r := n.guard.Report(); len(r.Open)+len(r.Ended) != 0 || n.processes.Alive(7) {
			f.t.Errorf("the guard knows %+v, the worker runs: %v", r, n.processes.Alive(7))
		}
		f.active(n, 8, time.Minute)
		n.processes.Exit(8)
		f.wantLast(lease.Released, "worker died", 0)
		f.active(n, 9, time.Minute)
		time.Sleep(62 * time.Second)
		f.wantLast(lease.Expired, quota.ReasonDeadline, time.Minute) // the front and the guard act at the same time
		if n.processes.Alive(9) {
			f.t.Error("the worker overstays")
		}
	})
}

func TestShortCutLosesNothing(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		g := f.active(n, 7, time.Minute)
		f.proxy.Partition()
		time.Sleep(10 * time.Second)
		f.wantOpen(lease.Active)
		f.proxy.Heal()
		time.Sleep(5 * time.Second)
		if err := f.Release(f.t.Context(), "demo", g.Lease, false); err != nil {
			f.t.Fatal(err)
		}
		time.Sleep(time.Second)
		f.wantLast(lease.Released, quota.ReasonReleased, 15*time.Second)
	})
}

func TestLostNodeComesBack(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		g := f.active(n, 7, 2*time.Minute)
		f.active(n, 8, 2*time.Minute)
		synctest.Wait() // until the node knows them
		f.proxy.Partition()
		time.Sleep(20 * time.Second)
		f.wantOpen(lease.Unreachable, lease.Unreachable)
		n.processes.Exit(8) // 20 s after its /allow
		time.Sleep(10 * time.Second)
		f.proxy.Heal()
		f.dial(n)
		f.wantOpen(lease.Active)
		f.wantLast(lease.Released, "worker died", 20*time.Second)
		time.Sleep(time.Second)
		if err := f.Release(f.t.Context(), "demo", g.Lease, false); err != nil {
			f.t.Fatal(err)
		}
		f.wantLast(lease.Released, quota.ReasonReleased, 31*time.Second)
		if r := n.guard.Report(); len(r.Open)+len(r.Ended) != 0 {
			f.t.Errorf("the guard knows %+v", r)
		}
	})
}

func TestLostNodeComesBackTooLate(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		f.active(n, 7, 30*time.Second)
		time.Sleep(10 * time.Second)
		f.proxy.Partition()
		time.Sleep(23 * time.Second) // 33 s after /allow: the guard has acted by its own clock
		if n.processes.Alive(7) {
			f.t.Error("the worker overstays on its own node")
		}
		f.wantOpen(lease.Unreachable)
		time.Sleep(5 * time.Second)
		f.wantOpen()
		f.wantLast(lease.Revoked, lease.ReasonMachineLost, 10*time.Second) // to the last beat
		f.proxy.Heal()
		f.dial(n)
		time.Sleep(time.Second)
		f.wantLast(lease.Revoked, lease.ReasonMachineLost, 10*time.Second)
		if r := n.guard.Report(); len(r.Open)+len(r.Ended) != 0 {
			f.t.Errorf("the guard knows %+v", r)
		}
		f.active(n, 8, time.Minute) // its GPUs are lent again
	})
}

func TestRestartedAgentIsChargedToItsLastBeat(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		f.active(n, 7, time.Minute)
		time.Sleep(10 * time.Second)
		f.server.Link("gpu2").Close()
		time.Sleep(5 * time.Second)
		f.dial(newFarNode(f.t, "gpu2", gputest.Devices(2)...))
		f.wantLast(lease.Revoked, reasonAgentRestarted, 10*time.Second)
	})
}

func TestDeviceOfTwoNodes(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		for name, uuid := range map[string]gpu.DeviceUUID{"node gpu2 already": "GPU-fake-1", "the host's own machine": "GPU-own"} {
			other := newFarNode(f.t, "gpu3", gpu.Device{UUID: uuid})
			if _, _, err := f.connect(other.Node, "gpu3"); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), string(uuid)) {
				f.t.Errorf("%v, want %q in it", err, name)
			}
		}
		f.server.Link("gpu2").Close()
		time.Sleep(16 * time.Second)
		f.dial(newFarNode(f.t, "gpu3", gputest.Devices(2)...)) // a lost node has no Devices
		if _, _, err := f.connect(n.Node, "gpu2"); err == nil || !strings.Contains(err.Error(), "node gpu3 already") {
			f.t.Errorf("error %v", err)
		}
		if len(f.Slots()) != 5 { // the lost node is still known
			f.t.Errorf("slots %+v", f.Slots())
		}
	})
}

func TestDrainOfNodeAndPart(t *testing.T) {
	onNode(t, func(f *front, n *farNode) {
		if err := f.Drain(f.t.Context(), "GPU-fake-1", lease.Drain{Reason: "new fan"}); err != nil {
			f.t.Fatal(err)
		}
		f.active(n, 7, time.Minute) // on the other Device
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Second)
		defer cancel()
		forgotten := make(chan error)
		go func() { forgotten <- f.Fleet.Forget(ctx, "gpu2") }()
		if err := <-forgotten; err != nil && !errors.Is(err, context.DeadlineExceeded) {
			f.t.Errorf("forget: %v", err)
		}
		f.wantOpen()
		if len(f.Slots()) != 1 || len(f.Nodes()) != 0 {
			f.t.Errorf("slots %+v, nodes %+v", f.Slots(), f.Nodes())
		}
	})
}
