package lease

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lease/leasetest"
	"spacehost/migrations"
	"spacehost/quota"
)

// BenchmarkSchedule is a whole call with a new worker and a real database: Schedule, Wait, Allow and Release.
func BenchmarkSchedule(b *testing.B) { benchmarkCalls(b, true) }

// BenchmarkWarmCall is a call with an idle worker.
func BenchmarkWarmCall(b *testing.B) { benchmarkCalls(b, false) }

func benchmarkCalls(b *testing.B, failed bool) {
	path := filepath.Join(b.TempDir(), "spacehost.db")
	db, err := migrations.Open(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	processes := leasetest.NewProcesses()
	broker := newCrashHost(b.Context(), path, db, processes)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = broker.Run(ctx) })
	defer running.Wait()
	defer cancel()
	pid := 0
	for b.Loop() {
		ticket, err := broker.Schedule(ctx, Request{
			Space: "demo", Instance: "run-1", Task: "draw", Declared: 10 * time.Second,
			Payer: identity.Identity{Kind: identity.User, Name: "ada"}, Tier: quota.Tier{Name: "unlimited", Unlimited: true},
		})
		if err != nil {
			b.Fatal(err)
		}
		g, err := ticket.Wait(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if !g.Idle {
			pid++
			processes.Start("demo", pid)
			if err := broker.Allow(ctx, "demo", g.Lease, pid); err != nil {
				b.Fatal(err)
			}
		}
		if err := broker.Release(ctx, "demo", g.Lease, failed); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScheduler is the scheduler's part of a call, with others waiting.
func BenchmarkScheduler(b *testing.B) {
	for _, waiting := range []int{0, 10, 100} {
		b.Run(fmt.Sprint(waiting, " waiting"), func(b *testing.B) {
			h := newSchedulerHarness(&testing.T{}, 8)
			short := func(r *Request) { r.Declared = time.Second }
			for range 7 {
				h.active()
			}
			for range waiting {
				h.schedule(func(r *Request) { r.Declared = time.Minute })
			}
			for b.Loop() {
				l := h.schedule(short)
				if h.passChecks(); l.State == Granted {
					_, _ = h.onRelease(l.Space, l.ID, false)
				} else {
					h.onLeft(l.Event)
				}
				h.onTime()
				h.finishReclaims()
				clear(h.answers)
				clear(h.settled)
				h.grants = nil
			}
		})
	}
}
