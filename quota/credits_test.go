package quota

import (
	"errors"
	"testing"
	"time"
)

func (f ledgerFixture) credit(d time.Duration) {
	f.t.Helper()
	if err := f.Credit(f.t.Context(), Adjustment{Identity: "user:ada", Amount: d, Reason: "paid", By: "operator"}); err != nil {
		f.t.Fatal(err)
	}
}

func (f ledgerFixture) wantCredits(now time.Time, left, held, charged time.Duration) {
	f.t.Helper()
	if b := f.balance(now); b.Credits != left || b.CreditHeld != held || b.CreditCharged != charged {
		f.t.Errorf("credits at %v: got %v left, %v held, %v charged; want %v, %v, %v", now, b.Credits, b.CreditHeld, b.CreditCharged, left, held, charged)
	}
}

// TestCreditsPayAfterTheQuota: a call takes what is left of the quota first, is charged from it first, and leaves credits alone
// where the quota suffices.
func TestCreditsPayAfterTheQuota(t *testing.T) {
	f := newFixture(t)
	f.credit(100 * s)
	f.use("within", 190*s, noon) // of 210
	f.wantCredits(noon, 100*s, 0, 0)
	f.mustHold("over", 60*s, noon)
	f.wantCredits(noon, 60*s, 40*s, 0)
	f.wantLeft(noon, 0)
	f.open("over", noon)
	f.mustSettle("over", 25*s, noon.Add(25*s)) // 20 s of the quota, 5 s of the credits
	f.wantCredits(noon, 95*s, 0, 5*s)
	if b := f.balance(noon); b.Charged != 210*s || b.Held != 0 {
		t.Errorf("got %+v, want the quota charged in full", b)
	}
	f.mustHold("back", 60*s, noon)
	f.mustSettle("back", 0, noon)
	f.wantCredits(noon, 95*s, 0, 5*s)
	if e := f.entries(); e[0].Held != 60*s || e[0].CreditHeld != 60*s || e[0].CreditCharged != 0 || e[2].CreditCharged != 5*s || e[len(e)-1].Kind != KindCredit {
		t.Errorf("entries: %+v", e)
	}
	f.check()
}

// TestCreditsSurviveTheWindow and a reset of it, and are still exact when the entries are forgotten.
func TestCreditsSurviveTheWindow(t *testing.T) {
	f := newFixture(t)
	f.credit(100 * s)
	f.use("quota", 210*s, noon)
	f.use("credits", 30*s, noon.Add(time.Hour))
	f.wantCredits(noon.Add(time.Hour), 70*s, 0, 30*s)
	if err := f.Reset(t.Context(), Adjustment{Identity: "user:ada", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	f.wantCredits(noon.Add(time.Hour), 70*s, 0, 30*s)
	f.wantLeft(noon.Add(time.Hour), 210*s)
	next := noon.Add(Span + time.Minute)
	f.wantCredits(next, 70*s, 0, 0)
	f.use("next", s, next)
	if gone := f.forget(next.Add(48*time.Hour), 100); gone.Windows != 2 || f.count(`SELECT count(*) FROM ledger`) != 0 {
		t.Errorf("forgot %+v", gone)
	}
	f.wantCredits(next, 70*s, 0, 0)
	f.credit(5 * s)
	f.wantCredits(next, 75*s, 0, 0)
	f.check()
}

// TestCreditsAreBoundedWhileHeld: what running calls hold cannot be promised again.
func TestCreditsAreBoundedWhileHeld(t *testing.T) {
	f := newFixture(t)
	f.credit(100 * s)
	f.use("quota", 210*s, noon)
	f.mustHold("a", 60*s, noon)
	until := noon.Add(90 * s)
	open := func(r *HoldRequest) { r.Pending = []Pending{{Lease: "a", Held: 60 * s, Until: until}} }
	_, err := f.hold("b", 50*s, noon, open)
	pending, ok := errors.AsType[*CreditsPendingError](err)
	if !ok || pending.LeftSeconds() != 40 || pending.WaitSeconds() != 90 || pending.Reason() != "50 s requested, 40 s left: running calls hold the rest of the credits" {
		t.Errorf("got %v, want 40 s left, and 90 s to wait for a", err)
	}
	_, err = f.hold("c", 110*s, noon, open)
	wantExceeded(t, err, 40, 86399, false) // more than all credits; the window is not open before the next use
	_, err = f.hold("d", 60*s, noon, open, via("other"))
	if exceeded, ok := errors.AsType[*ExceededError](err); !ok || exceeded.Left != 0 {
		t.Errorf("through another Space: got %v, want no credits", err)
	}
	f.mustHold("e", 40*s, noon, open)
	f.check()
}

// TestHeldCreditsAreNotForgotten: a lease may hold credits alone, in a window that has ended.
func TestHeldCreditsAreNotForgotten(t *testing.T) {
	f := newFixture(t)
	f.credit(100 * s)
	f.use("quota", 210*s, noon)
	f.mustHold("open", 60*s, noon.Add(time.Hour))
	later := noon.Add(100 * time.Hour)
	if gone := f.forget(later, 100); gone.Windows != 0 {
		t.Errorf("forgot %+v, and a lease is open", gone)
	}
	f.open("open", noon.Add(time.Hour))
	f.mustSettle("open", 60*s, noon.Add(2*time.Hour))
	if gone := f.forget(later, 100); gone.Windows != 1 {
		t.Errorf("forgot %+v, want the window", gone)
	}
	f.wantCredits(later, 40*s, 0, 0)
	f.check()
}

func TestCreditIsRefused(t *testing.T) {
	f := newFixture(t)
	f.credit(MostGrant - s)
	for _, amount := range []time.Duration{0, time.Millisecond, -s, MostGrant + s, 2 * s} {
		if err := f.Credit(t.Context(), Adjustment{Identity: "user:ada", Amount: amount}); !errors.As(err, new(*AdjustmentError)) {
			t.Errorf("credit %v: %v", amount, err)
		}
	}
}
