package lease

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/identity"
	"spacehost/quota"
)

// TestRandomCrashes ends hosts of an agent at random, by crashes and in order, and compares each charge with that of a host which
// never ends.
func TestRandomCrashes(t *testing.T) {
	seed, walks := *walkSeed, 12
	if seed == 0 {
		seed = rand.Uint64()
	}
	if isLargeRun() {
		walks = 200
	}
	counts := map[string]int{}
	for n := range walks {
		synctest.Test(t, func(t *testing.T) {
			k := &keptWalk{keptHarness: newKeptHarness(t, 3), rand: rand.New(rand.NewPCG(seed, uint64(n))), counts: counts, charges: map[string]time.Duration{}}
			for range 60 {
				k.step()
			}
			k.finish()
			if t.Failed() {
				t.Logf("walk %d; repeat with -walk.seed=%d", n, seed)
			}
		})
		if t.Failed() {
			return
		}
	}
	for _, what := range []string{"crash", "keep", "adopted", "released", "reused", "cancelled", "worker died", "expired", "expired without a host"} {
		if counts[what] < walks/6 {
			t.Errorf("%q happened %d times: %v", what, counts[what], counts)
		}
	}
}

// keptWalk is a keptHarness with random events.
type keptWalk struct {
	*keptHarness
	rand    *rand.Rand
	counts  map[string]int
	pids    int
	calls   []*walkCall
	charges map[string]time.Duration // by the ID of a Lease that has ended
}

// walkCall is a call with an active Lease.
type walkCall struct {
	lease, event string
	pid          int
	since, until time.Time
}

func (k *walkCall) used() time.Duration { return min(time.Since(k.since), k.until.Sub(k.since)) }

func (k *keptWalk) step() {
	switch k.rand.IntN(12) {
	case 0:
		k.endHost()
	case 1, 2, 3, 4:
		k.call()
	case 5, 6:
		k.onCall("released", func(c *walkCall) {
			if err := k.Release(k.t.Context(), "demo", c.lease, k.rand.IntN(4) == 0); err != nil {
				k.t.Errorf("release: %v", err)
			}
		})
	case 7:
		k.onCall("cancelled", func(c *walkCall) { k.Cancelled(c.event) })
	case 8:
		k.onCall("worker died", func(c *walkCall) { k.processes.Exit(c.pid) })
	default:
		k.sleep(time.Duration(k.rand.IntN(15_000)) * time.Millisecond)
	}
	synctest.Wait()
}

// call starts a call if a Slot is free.
func (k *keptWalk) call() {
	if len(k.calls) == 3 {
		return
	}
	k.pids++
	c := &walkCall{event: fmt.Sprint("event-", k.pids), pid: 100 + k.pids}
	declared := time.Duration(1+k.rand.IntN(40)) * time.Second
	g := k.grant(k.schedule(func(r *Request) {
		r.Event, r.Declared, r.Task = c.event, declared, []string{"draw", "speak"}[k.rand.IntN(2)]
		r.Payer, r.Tier = identity.Identity{Kind: identity.User, Name: c.event}, quota.Tier{Name: "unlimited", Unlimited: true}
	}))
	if g.Idle {
		c.pid = k.workerOf(g.Lease)
		k.counts["reused"]++
	} else {
		k.processes.Start("demo", c.pid)
		if err := k.Allow(k.t.Context(), "demo", g.Lease, c.pid); err != nil {
			k.t.Fatalf("allow: %v", err)
		}
	}
	c.lease, c.since = g.Lease, time.Now()
	c.until = c.since.Add(declared)
	k.calls = append(k.calls, c)
	if g.Idle {
		k.sleep(workerLossGrace) // before that, the exit of its worker would not end the lease
	}
}

func (k *keptWalk) workerOf(lease string) int {
	all := k.List()
	return all[slices.IndexFunc(all, func(s Snapshot) bool { return s.Lease == lease[:8] })].Worker
}

// onCall ends one call. Between its deadline and the kill it is charged for the declared time.
func (k *keptWalk) onCall(what string, end func(*walkCall)) {
	if len(k.calls) == 0 {
		return
	}
	c := k.calls[k.rand.IntN(len(k.calls))]
	k.counts[what]++
	k.charges[c.lease] = c.used()
	k.calls = slices.DeleteFunc(k.calls, func(o *walkCall) bool { return o == c })
	end(c)
	k.sleep(time.Second) // the Slot is free again then
}

// sleep ends the calls whose deadline and grace have passed.
func (k *keptWalk) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	k.dropExpired("expired")
}

func (k *keptWalk) dropExpired(what string) {
	k.calls = slices.DeleteFunc(k.calls, func(c *walkCall) bool {
		expired := !c.until.Add(deadlineGrace).After(time.Now())
		if expired {
			k.charges[c.lease] = c.used()
			k.counts[what]++
		}
		return expired
	})
}

// endHost ends the host, and starts the next one up to half a minute later.
func (k *keptWalk) endHost() {
	if k.rand.IntN(2) == 0 {
		k.crash()
		k.counts["crash"]++
	} else {
		k.leave()
		k.counts["keep"]++
	}
	time.Sleep(time.Duration(k.rand.IntN(30_000)) * time.Millisecond)
	synctest.Wait()
	k.dropExpired("expired without a host")
	k.next()
	k.counts["adopted"] += len(k.calls)
	k.check()
}

// check compares the active Leases and the processes with the calls. A new host has no idle worker.
func (k *keptWalk) check() {
	k.t.Helper()
	synctest.Wait()
	active := 0
	for _, s := range k.List() {
		if s.State != Active || !slices.ContainsFunc(k.calls, func(c *walkCall) bool { return c.lease[:8] == s.Lease }) {
			k.t.Errorf("open lease %+v", s)
		}
		active++
	}
	if active != len(k.calls) || k.agent.known() != active {
		k.t.Errorf("%d active leases, the agent knows %d; want %d", active, k.agent.known(), len(k.calls))
	}
	for n := range k.pids {
		pid := 101 + n
		if used := slices.ContainsFunc(k.calls, func(c *walkCall) bool { return c.pid == pid }); used != k.processes.Alive(pid) {
			k.t.Errorf("worker %d runs: %v, has a lease: %v", pid, k.processes.Alive(pid), used)
		}
	}
}

// finish waits for the last deadline and checks every charge.
func (k *keptWalk) finish() {
	k.sleep(time.Minute)
	k.endHost()
	k.stop()
	for lease, want := range k.charges {
		if got := milliseconds(int64(k.count(`SELECT charged_ms FROM ledger WHERE kind = 'settle' AND lease_id = ?`, lease))); got != want {
			k.t.Errorf("lease %s was charged %v, want %v", lease[:8], got, want)
		}
	}
	holds, settled := k.count(`SELECT count(*) FROM ledger WHERE kind = 'hold'`), k.count(`SELECT count(*) FROM ledger WHERE kind = 'settle'`)
	if holds != settled || holds != len(k.charges) || k.count(`SELECT count(*) FROM leases WHERE ended_at IS NULL`) != 0 || k.agent.known() != 0 {
		k.t.Errorf("%d holds, %d settlements of %d leases; the agent knows %d", holds, settled, len(k.charges), k.agent.known())
	}
}
