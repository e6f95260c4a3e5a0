package lease

import (
	"fmt"
	"testing"
	"time"
)

// wantForecasts checks who waits at which rank, from when in seconds (below 0: nobody can tell), and why.
func (w *world) wantForecasts(want ...string) {
	w.t.Helper()
	all := w.outlook().forecasts()
	for rank, l := range w.waiting {
		f, start := all[l], "never"
		if f.Start != nil {
			start = fmt.Sprintf("%g", f.Start.Sub(w.clock).Seconds())
		}
		got := fmt.Sprintf("%d at %s: %s%s", f.Rank, start, f.Reason, f.Limit)
		if f.Rank != rank || rank >= len(want) || got != want[rank] {
			w.t.Errorf("%s: got %q, want %q", l.ID, got, want)
		}
	}
	if len(all) != len(want) {
		w.t.Errorf("got %d forecasts, want %d", len(all), len(want))
	}
}

func TestForecastOfAPlainLine(t *testing.T) {
	w := newWorld(t, 2)
	w.active(lasting(20 * time.Second))
	w.pass(5 * time.Second)
	w.active(lasting(30 * time.Second))
	w.schedule(lasting(8 * time.Second))
	w.schedule(lasting(time.Minute))
	w.schedule()
	w.wantForecasts("0 at 15: node", "1 at 23: node", "2 at 30: node")
	w.pass(16 * time.Second) // the first is in its grace
	w.wantForecasts("0 at 0: node", "1 at 8: node", "2 at 14: node")
}

func TestForecastKnowsGrantsAndStrangers(t *testing.T) {
	w := newWorld(t, 2)
	w.granted(lasting(20 * time.Second)) // may begin now at the earliest
	holder := w.active()
	w.onReclaimedOf(holder, errNotReclaimed)
	w.schedule()
	w.schedule()
	w.wantForecasts("0 at 20: node", "1 at 30: node")
	w.shut(place{w.slots[0]}, errNotReclaimed)
	w.wantForecasts("0 at never: node", "1 at never: node")
}

// TestForecastCountsOnNobodyWhoIsLate: a Slot that does not come back, or a Device that does not answer.
func TestForecastCountsOnNobodyWhoIsLate(t *testing.T) {
	w := newWarmWorld(t, 2)
	w.warmed()
	w.schedule(task("speak")) // its look at the free one takes long
	w.schedule(task("paint")) // the idle worker goes for it, and its memory stays
	w.wantForecasts("0 at 0: node", "1 at 0: node")
	w.pass(overdue)
	w.wantForecasts("0 at never: node", "1 at never: node")
	w.onReclaimed(w.reclaims[0].place, errNotReclaimed)
	w.pass(recheck) // it is tried again
	w.wantPhase(0, reclaiming)
	w.wantForecasts("0 at never: node", "1 at never: node")
	w.clear()
	w.wantForecasts("0 at 10: node")
}

func TestForecastKnowsDrains(t *testing.T) {
	w := newWorld(t, 2)
	w.active(lasting(5 * time.Second))
	w.active(lasting(20 * time.Second))
	w.onDrain(device0, byOperator)
	w.schedule()
	w.wantForecasts("0 at 20: node")
	w.onDrain(device1, byOperator)
	w.wantForecasts("0 at never: node")
}

func TestForecastOfLimits(t *testing.T) {
	w := newWorld(t, 2)
	w.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	w.active(lasting(20 * time.Second))
	w.active(inSpace("other"), lasting(12*time.Second))
	w.schedule()
	w.schedule(inSpace("other"), payer("ben"), atMostAtOnce(1))
	w.schedule(inSpace("third"), payer("ben"), atMostAtOnce(1))
	w.schedule()
	w.wantForecasts("0 at 20: concurrencyspace", "1 at 12: node", "2 at 22: concurrencyidentity", "3 at 30: concurrencyspace")
}

func TestForecastOfXlarge(t *testing.T) {
	w := newSharedWorld(t, 1, 2)
	w.active(lasting(20 * time.Second))
	w.active(lasting(5 * time.Second))
	w.schedule(xlarge)
	w.schedule(lasting(14 * time.Second)) // leaves in time, so it passes
	w.schedule(lasting(16 * time.Second))
	w.wantForecasts("0 at 20: node", "1 at 5: node", "2 at 30: node")
}

// TestForecastComesTrue plays the line itself on: each that waits starts when it was said, if all take what they declared.
func TestForecastComesTrue(t *testing.T) {
	for _, devices := range []int{1, 2, 3} {
		w := newWorld(t, devices)
		w.queueTimeout = time.Hour
		w.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
		for i := range devices {
			w.active(inSpace("other"), lasting(time.Duration(3+5*i)*time.Second))
		}
		for i := range 12 {
			w.schedule(inSpace([]string{"demo", "other", "third"}[i%3]), payer([]string{"ada", "ben"}[i%2]), atMostAtOnce(2),
				lasting(time.Duration(1+7*i%11)*time.Second))
		}
		said := w.outlook().forecasts()
		if len(said) != 12 {
			t.Fatalf("%d forecasts", len(said))
		}
		for len(w.waiting) > 0 {
			w.pass(time.Second)
			w.finish()
		}
		for l, f := range said {
			if f.Start == nil || !l.Granted.Equal(*f.Start) {
				t.Errorf("%d devices: %s of %s was granted at %s, said was %v", devices, l.ID, l.Space, l.Granted, f.Start)
			}
		}
	}
}

// A thousand that wait are foreseen in no time that anybody would notice; this only keeps it from being quadratic in secret.
func BenchmarkForecast(b *testing.B) {
	w := newWorld(&testing.T{}, 4)
	w.queueTimeout = time.Hour
	w.perSpace = func(space string) int { return map[string]int{"demo": 2}[space] }
	for i := range 1000 {
		w.schedule(inSpace([]string{"demo", "other"}[i%2]), lasting(time.Duration(1+i%60)*time.Second))
	}
	for b.Loop() {
		w.outlook().forecasts()
	}
}
