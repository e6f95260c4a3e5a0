package lease

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/space"
	"spacehost/quota"
)

// TestEndLease ends a running and a waiting call. Both payers are charged nothing, and the next call gets the GPU.
func TestEndLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		time.Sleep(time.Second)
		waiting := h.schedule(func(r *Request) { r.Event, r.Payer = "event-2", ben })
		time.Sleep(time.Second)
		next := h.schedule(func(r *Request) { r.Event = "event-3" })
		time.Sleep(10 * time.Second)
		open := h.List()
		if len(open) != 3 || open[0].Granted == nil || open[0].Active == nil || open[0].Priority != nil || open[1].Priority == nil || open[1].Granted != nil {
			t.Fatalf("open leases: %+v", open)
		}
		var told []State
		end := func(digits string) (Ended, error) {
			return h.EndLease(digits, OperatorReason+"root: demo", func(e Ended) { told = append(told, e.Was) })
		}
		for _, unknown := range []string{"", "zzzz"} {
			if _, err := end(unknown); !errors.Is(err, ErrUnknown) {
				t.Errorf("end %q: %v, want ErrUnknown", unknown, err)
			}
		}
		if e, err := end(open[1].Lease); err != nil || e.Was != Waiting || e.Event != "event-2" || e.Identity != ben.Key() {
			t.Errorf("end of a waiting lease: %+v, %v", e, err)
		}
		if _, err := waiting.Wait(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("the waiting call gets %v, want ErrGone", err)
		}
		if e, err := end(g.Lease); err != nil || e.Was != Active {
			t.Errorf("end of an active lease: %+v, %v", e, err)
		}
		h.grant(next)
		if h.processes.Alive(100) || !slices.Equal(told, []State{Waiting, Active}) {
			t.Errorf("worker runs: %v; told: %v", h.processes.Alive(100), told)
		}
		h.wantBalance(ben, 0, 0)
		h.wantBalance(ada, 0, time.Minute) // the hold of the next call
		h.wantUsed(ada, g.Lease, 12*time.Second)
		if all, err := h.Past(t.Context(), 2); err != nil || len(all) != 2 || all[0].Reason != "ended by root: demo" || all[1].Reason != all[0].Reason {
			t.Errorf("ended leases: %+v, %v", all, err)
		}
		if _, err := end(g.Lease); !errors.Is(err, ErrUnknown) {
			t.Errorf("a second end: %v, want ErrUnknown", err)
		}
	})
}

// wantUsed checks that the ledger and the sums of the usage have the same use of the only active Lease that has ended.
func (h *brokerHarness) wantUsed(payer identity.Identity, lease string, want time.Duration) {
	h.t.Helper()
	entries, err := h.ledger.Matching(h.t.Context(), payer.Key(), quota.EntryFilter{}, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if used := e.Used(); e.Lease == lease && e.Kind == quota.KindSettle && (used != want || e.Charged != 0) {
			h.t.Errorf("the ledger has %s used and %s charged, want %s and 0", used, e.Charged, want)
		} else if e.Kind != quota.KindSettle && used != 0 {
			h.t.Errorf("an entry %s has %s used", e.Kind, used)
		}
	}
	day := quota.Breakdown{From: h.now().Add(-time.Hour), To: h.now().Add(time.Hour), Part: 24 * time.Hour, By: quota.ByPerson}
	sums, err := h.Sums(h.t.Context(), day)
	if err != nil {
		h.t.Fatal(err)
	}
	if !slices.ContainsFunc(sums, func(sum Sum) bool { return sum.Key == payer.Key() && sum.Used == want }) {
		h.t.Errorf("the usage has %+v, want %s of %s", sums, want, payer)
	}
}

// TestEndOfCallThatHasReturned: the call returns while its visitor is told of the end. It is charged, so EndLease reports no end.
func TestEndOfCallThatHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t).run()
		g := h.active(100)
		time.Sleep(3 * time.Second)
		if ended, err := h.EndLease(g.Lease, OperatorReason+"root", func(Ended) { h.release(g) }); !errors.Is(err, ErrUnknown) {
			t.Errorf("%+v, %v; want ErrUnknown", ended, err)
		}
		h.wantBalance(ada, 3*time.Second, 0)
	})
}

// TestAmbiguousEnd names two leases by the digits that they share.
func TestAmbiguousEnd(t *testing.T) {
	h := newSchedulerHarness(t, 1)
	h.leases = map[string]*Lease{"abcd1111": {ID: "abcd1111", State: Waiting}, "abcd2222": {ID: "abcd2222", State: Waiting}}
	_, _, err := h.shared.find("abcd")
	ambiguous, is := errors.AsType[*AmbiguousLeaseError](err)
	if !is || len(ambiguous.Matches) != 2 {
		t.Errorf("%v, want both leases", err)
	}
	if l, _, err := h.shared.find("abcd2"); err != nil || l.ID != "abcd2222" {
		t.Errorf("%v, %v", l, err)
	}
}

// TestEndOf compares the kinds of ends with the reasons that the host writes.
func TestEndOf(t *testing.T) {
	for _, row := range []struct {
		state  State
		reason string
		want   EndKind
	}{
		{Released, "released", EndReleased}, {Released, "failed", EndFailed}, {Released, "worker died", EndFailed},
		{Expired, "deadline", EndDeadline}, {Revoked, "ended by user:ada: demo", EndOperator}, {Withdrawn, "ended by root", EndOperator},
		{Revoked, space.EndedByHost, EndDrain}, {Revoked, space.EndedByRestart + "ada", EndDrain}, {Revoked, space.EndedByRemoval + "ada", EndDrain}, {Revoked, space.EndedByPause + "ada", EndDrain}, {Revoked, space.EndedByLeaving, EndDrain},
		{Revoked, "host crashed", EndCrash}, {Revoked, "space died", EndCrash}, {Revoked, space.EndedByHang, EndCrash},
		{Revoked, "cancelled", EndCancelled}, {Unclaimed, "never allowed", EndUnclaimed}, {Unclaimed, "connection lost", EndUnclaimed},
	} {
		if got := EndOf(row.state, row.reason); got != row.want {
			t.Errorf("%s, %q: %s, want %s", row.state, row.reason, got, row.want)
		}
	}
}
