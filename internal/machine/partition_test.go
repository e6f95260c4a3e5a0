package machine

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/internal/lease"
)

var partitionLeases = flag.Int("partition-leases", 10, "number of leases of TestDeadlineInPartition")

// TestDeadlineInPartition cuts the network while leases run. Each worker ends by the clock of its node in time, and each lease is settled
// once, whichever end of the link knows first.
func TestDeadlineInPartition(t *testing.T) {
	const atOnce = 10
	for round := range (*partitionLeases + atOnce - 1) / atOnce {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("round %d, seed %d", round, seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { partition(t, rand.New(rand.NewPCG(seed, 0)), atOnce) })
		})
	}
}

// ranLease is a lease of the test.
type ranLease struct {
	id       string
	worker   lease.Worker
	declared time.Duration
	began    time.Time
	ended    chan time.Time // the exit of the worker, by the node's clock
}

func partition(t *testing.T, random *rand.Rand, n int) {
	f := newFront(t)
	var devices []gpu.Device
	for i := range n {
		devices = append(devices, gpu.Device{UUID: gpu.DeviceUUID(fmt.Sprintf("GPU-far-%d", i)), Index: i, MemoryTotal: 80 << 30})
	}
	node := newFarNode(t, "gpu2", devices...)
	f.dial(node)
	before := func(limit time.Duration) time.Duration { return time.Duration(random.Int64N(int64(limit))) }
	var all []*ranLease
	for i := range n {
		one := &ranLease{declared: time.Second + before(2*time.Second), ended: make(chan time.Time, 1)}
		one.id = f.active(node, 100+i, one.declared).Lease
		one.began = time.Now()
		_, start := node.processes.SpaceOf(100 + i)
		one.worker = lease.Worker{PID: 100 + i, Start: start}
		go func() {
			node.processes.Wait(t.Context(), one.worker.PID, one.worker.Start)
			one.ended <- time.Now()
		}()
		all = append(all, one)
		if random.IntN(3) == 0 { // its function returns, and the runner's process with it
			time.AfterFunc(before(one.declared), func() { node.processes.Exit(one.worker.PID) })
		}
	}
	time.Sleep(before(3 * time.Second))
	cut := []time.Duration{10 * time.Second, 20 * time.Second}[random.IntN(2)] // the second loses the node
	f.proxy.Partition()
	time.Sleep(cut)
	f.proxy.Heal()
	time.Sleep(5 * time.Second)
	if f.server.Link("gpu2") == nil {
		f.dial(node)
	}
	time.Sleep(10 * time.Second)
	f.wantOpen()
	f.wantSettledOnce()
	for _, one := range all {
		ended := <-one.ended
		if late := ended.Sub(one.began.Add(one.declared)); late > 2*time.Second+200*time.Millisecond {
			t.Errorf("a worker ended %v after its deadline", late)
		}
		var milliseconds int64
		if err := f.db.QueryRowContext(t.Context(), `SELECT charged_ms FROM leases WHERE id = ?`, one.id).Scan(&milliseconds); err != nil {
			t.Fatal(err)
		}
		charged, used := time.Duration(milliseconds)*time.Millisecond, min(ended.Sub(one.began), one.declared)
		if charged > one.declared+time.Millisecond || used-charged > time.Second+cut {
			t.Errorf("charged %v of %v declared and %v used", charged, one.declared, used)
		}
	}
	if r := node.guard.Report(); len(r.Open)+len(r.Ended) != 0 {
		t.Errorf("the guard knows %+v", r)
	}
	f.stop()
}
