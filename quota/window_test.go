package quota

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestWindowEndsAfterExactly24Hours(t *testing.T) {
	f := newFixture(t)
	opened := noon.Add(1234567 * time.Microsecond) // SQL keeps 1234 ms
	f.use("a", 210*s, opened)
	reset := noon.Add(1234*time.Millisecond + Span)
	if got := f.balance(opened).ResetsAt; got == nil || !got.Equal(reset) {
		t.Fatalf("resets at: got %v, want %v", got, reset)
	}
	before := reset.Add(-time.Millisecond)
	_, err := f.hold("b", 1*s, before)
	wantExceeded(t, err, 0, 1, false)
	f.wantLeft(before, 0)
	f.wantLeft(reset, 210*s)
	if got := f.balance(reset); got.ResetsAt != nil || got.Charged != 0 {
		t.Errorf("at the reset: got %+v, want nothing used", got)
	}
	f.mustHold("c", 210*s, reset)
}

// The window is that of the admission: a hold from before the reset is charged in the window before the reset.
func TestHoldAndChargeBelongToWindowOfAdmission(t *testing.T) {
	f := newFixture(t)
	f.use("first", 10*s, noon)
	reset := noon.Add(Span)
	f.mustHold("late", 60*s, reset.Add(-s))
	f.wantLeft(reset.Add(-s), 140*s)
	f.wantLeft(reset, 210*s)
	f.open("late", reset.Add(5*s))
	f.mustHold("next", 60*s, reset.Add(6*s))
	f.mustSettle("late", 60*s, reset.Add(65*s))
	got := f.balance(reset.Add(65 * s))
	if got.Charged != 0 || got.Held != 60*s || got.ResetsAt != nil {
		t.Errorf("got %+v, want the next window untouched and not opened by the late lease", got)
	}
}

// A hold of an earlier Window frees nothing in this one, so its deadline does not shorten the wait.
func TestWaitIgnoresHoldsOfEarlierWindow(t *testing.T) {
	f := newFixture(t)
	f.use("first", 10*s, noon)
	reset := noon.Add(Span)
	f.mustHold("old", 180*s, reset.Add(-s))
	f.mustHold("new", 180*s, reset)
	_, err := f.hold("refused", 60*s, reset, func(r *HoldRequest) {
		r.Pending = []Pending{pending("old", 180*s, reset.Add(10*s)), pending("new", 180*s, reset.Add(50*s))}
	})
	wantExceeded(t, err, 30, 50, true)
}

func TestUnopenedWindowIsReused(t *testing.T) {
	f := newFixture(t)
	f.mustHold("unclaimed", 60*s, noon)
	f.mustSettle("unclaimed", 0, noon.Add(30*s))
	later := noon.Add(72 * time.Hour)
	f.mustHold("a", 60*s, later)
	f.open("a", later)
	f.open("a", later.Add(s)) // a second call changes nothing
	got := f.balance(later)
	if got.Opened == nil || !got.Opened.Equal(later) || f.entries()[0].Window != 1 {
		t.Errorf("got %+v, want the first window, opened at %v", got, later)
	}
}

func TestClockStepBackDoesNotReviveWindow(t *testing.T) {
	f := newFixture(t)
	f.use("first", 10*s, noon)
	f.use("second", 200*s, noon.Add(Span+time.Hour))
	back := noon.Add(2 * time.Hour) // within the first window, which had 200 s left
	f.wantLeft(back, 10*s)
	_, err := f.hold("a", 60*s, back)
	wantExceeded(t, err, 10, 86399, false)
	f.mustHold("b", 10*s, back)
	if got := f.entries()[0].Window; got != 2 {
		t.Errorf("window: got %d, want 2", got)
	}
}

func TestReanchorRepairsWindowsOfClockAhead(t *testing.T) {
	f := newFixture(t)
	f.use("a", 210*s, noon.Add(365*24*time.Hour))
	n, err := f.Reanchor(t.Context(), noon)
	if err != nil || n != 1 {
		t.Fatalf("got %d (%v), want 1", n, err)
	}
	if got := f.balance(noon); got.Left != 0 || !got.ResetsAt.Equal(noon.Add(Span)) {
		t.Errorf("got %+v, want nothing left until 24 h from now", got)
	}
	if n, err := f.Reanchor(t.Context(), noon); err != nil || n != 0 {
		t.Errorf("the second time: got %d (%v), want 0", n, err)
	}
}

func TestListShowsCurrentWindow(t *testing.T) {
	f := newFixture(t)
	f.use("a", 10*s, noon)
	f.use("b", 20*s, noon.Add(Span))
	for at, want := range map[time.Duration]time.Duration{Span: 20 * s, 2*Span - 1: 20 * s, 2 * Span: 0} {
		list, err := f.List(t.Context(), noon.Add(at))
		if err != nil || len(list) != 1 || list[0].Charged != want {
			t.Errorf("after %v: got %+v (%v), want %v charged", at, list, err, want)
		}
	}
}

func TestGrantAndReset(t *testing.T) {
	f := newFixture(t)
	f.use("a", 200*s, noon)
	f.mustHold("b", 10*s, noon)
	by := Adjustment{Identity: "user:ada", Amount: 100 * s, Reason: "demo day", By: "root"}
	if err := f.Grant(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	f.wantLeft(noon, 100*s)
	if err := f.Reset(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	f.wantLeft(noon, 300*s)
	f.mustSettle("b", 10*s, noon)
	f.wantLeft(noon, 300*s)
	f.wantLeft(noon.Add(Span), 210*s)
	reset := f.entries()[1]
	if reset.Kind != KindReset || reset.Returned != 200*s || reset.By != "root" || reset.Reason != "demo day" || reset.Lease != "" {
		t.Errorf("got %+v, want the reset with its operator", reset)
	}
	lines := len(f.entries())
	for what, err := range map[string]error{
		"nothing":           f.Grant(t.Context(), Adjustment{Identity: "user:ada"}),
		"less than nothing": f.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: -time.Hour}),
		"a thousand years":  f.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: math.MaxInt64}),
		"a reset of none":   f.Reset(t.Context(), Adjustment{Identity: "user:bob"}),
	} {
		var refused *AdjustmentError
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want an *AdjustmentError", what, err)
		}
	}
	if got := len(f.entries()); got != lines {
		t.Errorf("refused adjustments have written %d entries", got-lines)
	}
}

// A grant before the first use lasts exactly until the end of the window that this use opens.
func TestGrantBelongsToItsWindow(t *testing.T) {
	f := newFixture(t)
	if err := f.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: 100 * s, By: "root"}); err != nil {
		t.Fatal(err)
	}
	f.use("a", 200*s, noon.Add(time.Hour))
	f.wantLeft(noon.Add(time.Hour), 110*s)
	f.wantLeft(noon.Add(time.Hour+Span-time.Millisecond), 110*s)
	f.wantLeft(noon.Add(time.Hour+Span), 210*s)
}
