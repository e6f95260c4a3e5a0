package quota

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestRequested(t *testing.T) {
	short := Tier{Quota: 210 * s, Longest: 60 * s}
	for _, row := range []struct {
		name     string
		tier     Tier
		declared time.Duration
		factor   int
		want     time.Duration
		longest  time.Duration // in the refusal
	}{
		{"large", free, 60 * s, 1, 60 * s, 0},
		{"xlarge costs double", free, 45 * s, 2, 90 * s, 0},
		{"0 replaced by 1", free, 1 * s, 1, 1 * s, 0},
		{"the whole quota", free, 210 * s, 1, 210 * s, 0},
		{"above the quota", free, 211 * s, 1, 0, 210 * s},
		{"above the quota only by size", free, 106 * s, 2, 0, 210 * s},
		{"above the longest", short, 61 * s, 1, 0, 60 * s},
		{"-1 as it arrives", free, 86399 * s, 1, 0, 210 * s},
		{"large enough to wrap round", free, math.MaxInt64, 2, 0, 210 * s},
		{"unlimited", unlimited, 86399 * s, 2, 2 * 86399 * s, 0},
		{"part of a millisecond", free, 1500 * time.Microsecond, 1, 2 * time.Millisecond, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := HoldRequest{Lease: "a", Identity: "local", Tier: row.tier, Declared: row.declared, Factor: row.factor}
			got, err := r.requested()
			var illegal *IllegalDurationError
			if errors.As(err, &illegal) != (row.longest > 0) || got != row.want {
				t.Fatalf("got %v (%v), want %v", got, err, row.want)
			}
			if illegal != nil && illegal.Longest != row.longest {
				t.Errorf("longest: got %v, want %v", illegal.Longest, row.longest)
			}
		})
	}
}

func TestRequestedRefusesInvalidRequests(t *testing.T) {
	good := HoldRequest{Lease: "a", Identity: "local", Tier: free, Declared: s, Factor: 1}
	for name, spoil := range map[string]func(r *HoldRequest){
		"no lease":    func(r *HoldRequest) { r.Lease = "" },
		"no identity": func(r *HoldRequest) { r.Identity = "" },
		"no duration": func(r *HoldRequest) { r.Declared = 0 },
		"negative":    func(r *HoldRequest) { r.Declared = -s },
		"no factor":   func(r *HoldRequest) { r.Factor = Factor("huge") },
	} {
		r := good
		spoil(&r)
		if got, err := r.requested(); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestExceeded(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	opened := func(charged, held time.Duration) window {
		return window{id: 1, opened: in(-time.Hour), ends: in(23 * time.Hour), charged: charged, held: held}
	}
	unopened := func(held time.Duration) window { return window{id: 1, held: held} }
	for _, row := range []struct {
		name      string
		requested time.Duration
		w         window
		pending   []Pending
		want      ExceededError
	}{
		{"60 requested, 30 left after charges", 60 * s, opened(180*s, 0), nil,
			ExceededError{Left: 30 * s, Wait: 23 * time.Hour}},
		{"60 requested, 30 left after charges and insufficient holds", 60 * s, opened(160*s, 20*s),
			[]Pending{{Held: 20 * s, Until: in(5 * s)}}, ExceededError{Left: 30 * s, Wait: 23 * time.Hour}},
		{"three holds of 60 on 210", 60 * s, unopened(180 * s),
			[]Pending{{Held: 60 * s, Until: in(50 * s)}, {Held: 60 * s, Until: in(20 * s)}, {Held: 60 * s, Until: in(40 * s)}},
			ExceededError{Left: 30 * s, Wait: 20 * s, OnlyHolds: true}},
		{"the second deadline frees enough", 100 * s, unopened(180 * s),
			[]Pending{{Held: 60 * s, Until: in(50 * s)}, {Held: 60 * s, Until: in(20 * s)}, {Held: 60 * s, Until: in(40 * s)}},
			ExceededError{Left: 30 * s, Wait: 40 * s, OnlyHolds: true}},
		{"a deadline that is over", 60 * s, unopened(180 * s), []Pending{{Held: 60 * s, Until: in(-3 * s)}},
			ExceededError{Left: 30 * s, Wait: 0, OnlyHolds: true}},
		{"holds missing from the request", 60 * s, opened(0, 180*s), nil,
			ExceededError{Left: 30 * s, Wait: 23 * time.Hour, OnlyHolds: true}},
		{"the reset comes before the deadline", 60 * s, window{id: 1, opened: in(5*s - Span), ends: in(5 * s), held: 180 * s},
			[]Pending{{Held: 60 * s, Until: in(50 * s)}}, ExceededError{Left: 30 * s, Wait: 5 * s, OnlyHolds: true}},
		{"charged before it was opened", 60 * s, window{id: 1, charged: 180 * s}, nil,
			ExceededError{Left: 30 * s, Wait: Span}},
		{"the tier shrank", 60 * s, opened(500*s, 0), nil, ExceededError{Left: 0, Wait: 23 * time.Hour}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.want.Requested = row.requested
			got := HoldRequest{Tier: free, Now: noon}.exceeded(row.requested, row.w, credits{}, row.pending)
			if *got != row.want {
				t.Errorf("got %+v, want %+v", *got, row.want)
			}
		})
	}
}

func TestWireSeconds(t *testing.T) {
	for _, row := range []struct {
		left, wait         time.Duration
		wantLeft, wantWait int
	}{
		{30 * s, 90 * s, 30, 90},
		{30*s + 999*time.Millisecond, 90*s + time.Millisecond, 30, 91},
		{0, 0, 0, 1},
		{999 * time.Millisecond, time.Nanosecond, 0, 1},
		{0, Span, 0, 86399},
		{0, Span - s, 0, 86399},
		{0, Span - s - time.Millisecond, 0, 86399},
		{0, Span - 2*s, 0, 86398},
		{0, 400 * 24 * time.Hour, 0, 86399},
	} {
		e := &ExceededError{Left: row.left, Wait: row.wait}
		if e.LeftSeconds() != row.wantLeft || e.WaitSeconds() != row.wantWait {
			t.Errorf("left %v, wait %v: got %d and %d, want %d and %d",
				row.left, row.wait, e.LeftSeconds(), e.WaitSeconds(), row.wantLeft, row.wantWait)
		}
	}
}
