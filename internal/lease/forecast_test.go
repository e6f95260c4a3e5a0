package lease

import (
	"fmt"
	"testing"
	"time"
)

// wantForecasts checks the rank, the start in seconds ("never": unknown) and the reason of each waiting Lease.
func (h *schedulerHarness) wantForecasts(want ...string) {
	h.t.Helper()
	all := h.simulation().forecasts()
	for rank, l := range h.waiting {
		f, start := all[l], "never"
		if f.Start != nil {
			start = fmt.Sprintf("%g", f.Start.Sub(h.clock).Seconds())
		}
		got := fmt.Sprintf("%d at %s: %s%s", f.Rank, start, f.Reason, f.Limit)
		if f.Rank != rank || rank >= len(want) || got != want[rank] {
			h.t.Errorf("%s: got %q, want %q", l.ID, got, want)
		}
	}
	if len(all) != len(want) {
		h.t.Errorf("got %d forecasts, want %d", len(all), len(want))
	}
}

func TestForecastOfWaitingLeases(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.active(lasting(20 * time.Second))
	h.advance(5 * time.Second)
	h.active(lasting(30 * time.Second))
	h.schedule(lasting(8 * time.Second))
	h.schedule(lasting(time.Minute))
	h.schedule()
	h.wantForecasts("0 at 15: node", "1 at 23: node", "2 at 30: node")
	h.advance(16 * time.Second) // the first is in its grace
	h.wantForecasts("0 at 0: node", "1 at 8: node", "2 at 14: node")
}

func TestForecastWithGrantsAndForeignProcesses(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.granted(lasting(20 * time.Second)) // its clock starts now at the earliest
	holder := h.active()
	h.releaseAndReclaim(holder, errNotReclaimed)
	h.schedule()
	h.schedule()
	h.wantForecasts("0 at 20: node", "1 at 30: node")
	h.markBusy(allocation{h.slots[0]}, errNotReclaimed)
	h.wantForecasts("0 at never: node", "1 at never: node")
}

// TestForecastSkipsOverdueSlots: a Slot is not returned, or a Device does not answer.
func TestForecastSkipsOverdueSlots(t *testing.T) {
	h := newWarmSchedulerHarness(t, 2)
	h.leaveIdleWorker()
	h.schedule(task("speak")) // the check of the free Slot takes long
	h.schedule(task("paint")) // the idle worker is evicted for it, and its memory is not freed
	h.wantForecasts("0 at 0: node", "1 at 0: node")
	h.advance(overdue)
	h.wantForecasts("0 at never: node", "1 at never: node")
	h.onReclaimed(h.reclaims[0].allocation, errNotReclaimed)
	h.advance(recheckInterval) // it is ended again
	h.wantPhase(0, reclaiming)
	h.wantForecasts("0 at never: node", "1 at never: node")
	h.passChecks()
	h.wantForecasts("0 at 10: node")
}

func TestForecastWithDrains(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.active(lasting(5 * time.Second))
	h.active(lasting(20 * time.Second))
	h.drain(device0, byOperator)
	h.schedule()
	h.wantForecasts("0 at 20: node")
	h.drain(device1, byOperator)
	h.wantForecasts("0 at never: node")
}

func TestForecastOfLimits(t *testing.T) {
	h := newSchedulerHarness(t, 2)
	h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
	h.active(lasting(20 * time.Second))
	h.active(inSpace("other"), lasting(12*time.Second))
	h.schedule()
	h.schedule(inSpace("other"), payer("ben"), atMostAtOnce(1))
	h.schedule(inSpace("third"), payer("ben"), atMostAtOnce(1))
	h.schedule()
	h.wantForecasts("0 at 20: concurrencyspace", "1 at 12: node", "2 at 22: concurrencyidentity", "3 at 30: concurrencyspace")
}

func TestForecastOfXlarge(t *testing.T) {
	h := newSharedSchedulerHarness(t, 1, 2)
	h.active(lasting(20 * time.Second))
	h.active(lasting(5 * time.Second))
	h.schedule(xlarge)
	h.schedule(lasting(14 * time.Second)) // ends in time, so it overtakes
	h.schedule(lasting(16 * time.Second))
	h.wantForecasts("0 at 20: node", "1 at 5: node", "2 at 30: node")
}

// TestForecastComesTrue runs the scheduler: each waiting Lease starts as forecast, if all use their declared
// seconds in full.
func TestForecastComesTrue(t *testing.T) {
	for _, devices := range []int{1, 2, 3} {
		h := newSchedulerHarness(t, devices)
		h.queueTimeout = time.Hour
		h.perSpace = func(space string) int { return map[string]int{"demo": 1}[space] }
		for i := range devices {
			h.active(inSpace("other"), lasting(time.Duration(3+5*i)*time.Second))
		}
		for i := range 12 {
			h.schedule(inSpace([]string{"demo", "other", "third"}[i%3]), payer([]string{"ada", "ben"}[i%2]), atMostAtOnce(2),
				lasting(time.Duration(1+7*i%11)*time.Second))
		}
		forecast := h.simulation().forecasts()
		if len(forecast) != 12 {
			t.Fatalf("%d forecasts", len(forecast))
		}
		for len(h.waiting) > 0 {
			h.advance(time.Second)
			h.runToDeclaredEnd()
		}
		for l, f := range forecast {
			if f.Start == nil || !l.Granted.Equal(*f.Start) {
				t.Errorf("%d devices: %s of %s was granted at %s, forecast was %v", devices, l.ID, l.Space, l.Granted, f.Start)
			}
		}
	}
}

// BenchmarkForecast makes a quadratic algorithm visible: a forecast of a thousand waiting leases takes no
// noticeable time.
func BenchmarkForecast(b *testing.B) {
	h := newSchedulerHarness(&testing.T{}, 4)
	h.queueTimeout = time.Hour
	h.perSpace = func(space string) int { return map[string]int{"demo": 2}[space] }
	for i := range 1000 {
		h.schedule(inSpace([]string{"demo", "other"}[i%2]), lasting(time.Duration(1+i%60)*time.Second))
	}
	for b.Loop() {
		h.simulation().forecasts()
	}
}
