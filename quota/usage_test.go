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
		{1058 * s, 60 * s, s, 17, 999},
		{1059 * s, 60 * s, s, 17, MostInTurn},
		{1060 * s, 60 * s, s, 17, MostInTurn},
		{528 * s, 60 * s, time.Millisecond, 8, MostInTurn},
		{2000 * s, s, time.Millisecond, 2000, 2000},
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
	got, err := f.Usages(t.Context(), UsageQuery{From: since, Shares: true})
	want := []Usage{
		{Space: "demo", Task: "draw", Factor: 1, Calls: 2, Declared: 60 * s, Longest: 3 * s, Mean: 2500 * time.Millisecond, Median: 2 * s, Most: 3 * s},
		{Space: "demo", Task: "draw", Factor: 2, Calls: 1, Declared: 60 * s, Longest: 4 * s, Mean: 4 * s, Median: 4 * s, Most: 4 * s},
		{Space: "demo", Task: "slow", Factor: 1, Calls: 1, Overstayed: 1, Declared: 3 * s, Longest: 3 * s, Mean: 3 * s, Median: 3 * s, Most: 3 * s},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	got, err = f.Usages(t.Context(), UsageQuery{Identity: "ip:203.0.113.7", From: since})
	if err != nil || len(got) != 1 || got[0].Calls != 1 || got[0].Longest != 2*s {
		t.Errorf("of one account: %+v, %v", got, err)
	}
}

// TestUsagesUntil: percentiles are those of the calls between the times.
func TestUsagesUntil(t *testing.T) {
	f := newFixture(t)
	if _, err := f.db.Exec(`INSERT INTO windows (id, identity) VALUES (1, 'user:ada')`); err != nil {
		t.Fatal(err)
	}
	const calls = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
		INSERT INTO ledger (at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason)
		SELECT ?1 + i, 'user:ada', 1, 'lease-' || i, 'settle', 'demo', 'draw', 60000, i * 100, 60000 - i * 100, 'released' FROM n`
	if _, err := f.db.Exec(calls, noon.UnixMilli()); err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	for _, row := range []struct {
		to           time.Time
		calls        int
		median, most time.Duration
	}{
		{time.Time{}, 200, 10 * s, 19600 * ms}, // 0.1 s to 20 s
		{noon.Add(101 * ms), 100, 5 * s, 9800 * ms},
		{noon.Add(2 * ms), 1, 100 * ms, 100 * ms},
	} {
		got, err := f.Usages(t.Context(), UsageQuery{Identity: "user:ada", From: noon, To: row.to, Shares: true})
		if err != nil || len(got) != 1 || got[0].Calls != row.calls || got[0].Median != row.median || got[0].Most != row.most {
			t.Errorf("until %v: got %+v, %v, want %+v", row.to, got, err, row)
			continue
		}
		got[0].Median, got[0].Most = 0, 0
		if plain, err := f.Usages(t.Context(), UsageQuery{From: noon, To: row.to}); err != nil || fmt.Sprint(plain) != fmt.Sprint(got) {
			t.Errorf("until %v without shares: got %+v, %v, want %+v", row.to, plain, err, got)
		}
	}
}

// TestTight: it is much shorter than the advice, which cuts off no call.
func TestTight(t *testing.T) {
	const s = time.Second
	for name, row := range map[string]struct {
		usage  Usage
		factor float64
		want   time.Duration
		ok     bool
	}{
		"a long tail":       {Usage{Calls: 214, Declared: 60 * s, Longest: 25 * s, Most: 14 * s}, 1, 15 * s, true},
		"on an RTX":         {Usage{Calls: 214, Declared: 90 * s, Longest: 37500 * time.Millisecond, Most: 21 * s}, 1.5, 15 * s, true},
		"few calls":         {Usage{Calls: 99, Declared: 60 * s, Longest: 25 * s, Most: 14 * s}, 1, 15 * s, false},
		"no tail":           {Usage{Calls: 214, Declared: 60 * s, Longest: 11 * s, Most: 15 * s}, 1, 16 * s, false},
		"no advice":         {Usage{Calls: 214, Declared: 60 * s, Longest: 58 * s, Most: 14 * s}, 1, 15 * s, true},
		"calls were ended":  {Usage{Calls: 214, Declared: 60 * s, Longest: 60 * s, Most: 14 * s, Overstayed: 1}, 1, 15 * s, false},
		"at least 5 s":      {Usage{Calls: 214, Declared: 60 * s, Longest: 25 * s, Most: s}, 1, 5 * s, true},
		"declared is short": {Usage{Calls: 214, Declared: 5 * s, Longest: 4 * s, Most: s}, 1, 5 * s, false},
	} {
		if got, ok := row.usage.Tight(row.factor); got != row.want || ok != row.ok {
			t.Errorf("%s: got %s, %v, want %s, %v", name, got, ok, row.want, row.ok)
		}
	}
}
