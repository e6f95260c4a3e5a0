package lease

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// readAll returns the Changes sent so far.
func readAll(changes <-chan Change) (all []Change, open bool) {
	synctest.Wait()
	for {
		select {
		case c, more := <-changes:
			if !more {
				return all, false
			}
			all = append(all, c)
		default:
			return all, true
		}
	}
}

func TestWatchSendsOpenLeasesThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var published []State
		h := newBrokerHarness(t, func(c *Config) { c.Changed = func(c Change) { published = append(published, c.State) } }).run()
		first := h.active(100)
		time.Sleep(time.Second)
		h.schedule()
		changes := h.Watch(t.Context())
		time.Sleep(3 * time.Second)
		h.release(first)
		all, _ := readAll(changes)
		var states []State
		for _, c := range all {
			states = append(states, c.State)
		}
		if want := []State{Active, Waiting, Released, Granted}; !slices.Equal(states, want) {
			t.Fatalf("watched %v, want %v", states, want)
		}
		if want := []State{Waiting, Granted, Active, Waiting, Released, Granted}; !slices.Equal(published, want) {
			t.Errorf("published %v, want %v", published, want)
		}
		end, next := all[2], all[3]
		if end.ChargedSeconds != 4 || end.OccupiedSeconds != 4 || end.Worker != 100 || end.Reason != "released" || end.Lease != first.Lease[:8] {
			t.Errorf("got %+v, want 4 s of worker 100", end)
		}
		if next.WaitedSeconds != 3 || next.Slot == nil || *next.Slot != 0 || next.Identity != ada.Key() {
			t.Errorf("got %+v, want slot 0 for ada after 3 s", next)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		ctx, leave := context.WithCancel(t.Context())
		left, stays := h.Watch(ctx), h.Watch(t.Context())
		leave()
		if _, open := readAll(left); open {
			t.Error("a watcher whose context ended still receives changes")
		}
		if _, open := readAll(stays); !open {
			t.Error("the other watcher receives no more changes")
		}
		h.cancel()
		if _, open := readAll(stays); open {
			t.Error("the host has stopped, but the stream of changes is open")
		}
		if _, open := readAll(h.Watch(t.Context())); open {
			t.Error("a stopped host can be watched")
		}
	})
}

func TestSlowWatcherIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		slow := h.Watch(t.Context())
		l := newLease(Request{Space: "demo", Payer: ada}, time.Now())
		h.do(func(*schedulers) {
			for range watchBuffer + 1 {
				h.changed(l)
			}
		})
		if all, open := readAll(slow); open || len(all) != watchBuffer {
			t.Errorf("got %d changes, still open: %v; want %d and the end", len(all), open, watchBuffer)
		}
	})
}
