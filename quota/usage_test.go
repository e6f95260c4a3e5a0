package quota

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"
)

func TestFits(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		left, held, used time.Duration
		together, inTurn int
	}{
		{198 * s, 60 * s, 3 * s, 3, 47}, // after four calls of a free visitor of 2026-04
		{210 * s, 5 * s, 3 * s, 42, 69},
		{60 * s, 60 * s, 60 * s, 1, 1},
		{60 * s, 60 * s, 61 * s, 1, 1}, // a charge never exceeds its hold
		{59 * s, 60 * s, 3 * s, 0, 0},
		{60 * s, 60 * s, 0, 1, 1},
		{62 * s, 60 * s, s, 1, 3},
		{60 * s, 0, 3 * s, 0, 0},
	} {
		if together, inTurn := Fits(row.left, row.held, row.used); together != row.together || inTurn != row.inTurn {
			t.Errorf("Fits(%s, %s, %s) = %d, %d, want %d, %d", row.left, row.held, row.used, together, inTurn, row.together, row.inTurn)
		}
	}
}

func TestADayOfATier(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		tier             Tier
		held, used       time.Duration
		together, inTurn int
		ok               bool
	}{
		{Tier{Quota: 210 * s}, 60 * s, 3 * s, 3, 51, true},
		{Tier{Quota: 300 * s, Runs: 8}, 60 * s, 3 * s, 5, 8, true},
		{Tier{Quota: 300 * s, Runs: 8}, 5 * s, 3 * s, 8, 8, true},
		{Tier{Quota: 210 * s}, 300 * s, 3 * s, 0, 0, true},
		{Tier{Quota: 210 * s, Longest: 30 * s}, 60 * s, 3 * s, 0, 0, true},
		{Tier{Unlimited: true}, 60 * s, 3 * s, 0, 0, false},
	} {
		if together, inTurn, ok := row.tier.Day(row.held, row.used); together != row.together || inTurn != row.inTurn || ok != row.ok {
			t.Errorf("%+v.Day(%s, %s) = %d, %d, %v, want %d, %d, %v", row.tier, row.held, row.used, together, inTurn, ok, row.together, row.inTurn, row.ok)
		}
	}
}

func TestAdvice(t *testing.T) {
	const s = time.Second
	for name, row := range map[string]struct {
		usage Usage
		want  time.Duration
		ok    bool
	}{
		"much less":              {Usage{Calls: 12, Declared: 60 * s, Longest: 3 * s}, 5 * s, true},
		"half as much again":     {Usage{Calls: 3, Declared: 60 * s, Longest: 20300 * time.Millisecond}, 31 * s, true},
		"two calls":              {Usage{Calls: 2, Declared: 60 * s, Longest: 3 * s}, 5 * s, false},
		"nothing to gain":        {Usage{Calls: 12, Declared: 60 * s, Longest: 33 * s}, 50 * s, false},
		"a short one":            {Usage{Calls: 12, Declared: 5 * s, Longest: s}, 5 * s, false},
		"one that ran into it":   {Usage{Calls: 12, Declared: 60 * s, Longest: 60 * s, Overstayed: 1}, 90 * s, true},
		"the only one ran so":    {Usage{Calls: 1, Declared: 3 * s, Longest: 3 * s, Overstayed: 1}, 5 * s, true},
		"at the edge of a gain":  {Usage{Calls: 3, Declared: 10 * s, Longest: 5300 * time.Millisecond}, 8 * s, true},
		"beyond that edge":       {Usage{Calls: 3, Declared: 10 * s, Longest: 5400 * time.Millisecond}, 9 * s, false},
		"a part of a second too": {Usage{Calls: 3, Declared: 60 * s, Longest: 4001 * time.Millisecond}, 7 * s, true},
	} {
		if got, ok := row.usage.Advice(1); got != row.want || ok != row.ok {
			t.Errorf("%s: got %s, %v, want %s, %v", name, got, ok, row.want, row.ok)
		}
	}
}

// TestAdviceOnAnRTX: spaces requests 90 s for 60 declared ones, so 5 declared ones hold 7.5 s.
func TestAdviceOnAnRTX(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		usage Usage
		want  time.Duration
	}{
		{Usage{Calls: 3, Declared: 90 * s, Longest: 3 * s}, 5 * s},
		{Usage{Calls: 3, Declared: 90 * s, Longest: 30 * s}, 30 * s},
		{Usage{Calls: 1, Declared: 90 * s, Longest: 90 * s, Overstayed: 1}, 90 * s},
	} {
		if got, ok := row.usage.Advice(1.5); got != row.want || !ok {
			t.Errorf("%+v: got %s, %v, want %s", row.usage, got, ok, row.want)
		}
	}
}

// TestUsages: only calls that returned or reached their deadline count, by function and size, since a time.
func TestUsages(t *testing.T) {
	f := newFixture(t)
	call := func(minute int, declared, used time.Duration, reason string, alter ...func(*HoldRequest)) {
		t.Helper()
		at := noon.Add(time.Duration(minute) * time.Minute)
		lease := fmt.Sprint("lease-", minute)
		f.mustHold(lease, declared, at, append(alter, func(r *HoldRequest) { r.Tier.Unlimited = true })...)
		err := f.inTx(func(ctx context.Context, tx *sql.Tx) error {
			return f.Settle(ctx, tx, Settlement{Lease: lease, Charged: used, Reason: reason, Now: at, Ran: at})
		})
		if err != nil {
			t.Fatalf("settle %s: %v", lease, err)
		}
	}
	const s = time.Second
	call(0, 90*s, 80*s, ReasonReleased) // before the time
	call(1, 60*s, 3*s, ReasonReleased)
	call(2, 60*s, 2*s, ReasonReleased, func(r *HoldRequest) { r.Identity = "ip:203.0.113.7" })
	call(3, 60*s, 50*s, "failed")
	call(4, 60*s, 40*s, "cancelled")
	call(5, 3*s, 3*s, ReasonDeadline, func(r *HoldRequest) { r.Task = "slow" })
	call(6, 60*s, 8*s, ReasonReleased, func(r *HoldRequest) { r.Factor = 2 })
	call(7, 60*s, 0, ReasonReleased) // before /allow
	call(8, 60*s, 9*s, ReasonReleased, func(r *HoldRequest) { r.Task = "" })
	since := noon.Add(time.Minute)
	got, err := f.Usages(t.Context(), "", since)
	want := []Usage{
		{Space: "demo", Task: "draw", Factor: 1, Calls: 2, Declared: 60 * s, Longest: 3 * s, Mean: 2500 * time.Millisecond},
		{Space: "demo", Task: "draw", Factor: 2, Calls: 1, Declared: 60 * s, Longest: 4 * s, Mean: 4 * s},
		{Space: "demo", Task: "slow", Factor: 1, Calls: 1, Overstayed: 1, Declared: 3 * s, Longest: 3 * s, Mean: 3 * s},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	got, err = f.Usages(t.Context(), "ip:203.0.113.7", since)
	if err != nil || len(got) != 1 || got[0].Calls != 1 || got[0].Longest != 2*s {
		t.Errorf("of one account: %+v, %v", got, err)
	}
}
