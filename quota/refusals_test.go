package quota

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// counts returns the stored refusals of a breakdown as text, in order.
func (f ledgerFixture) counts(b Breakdown) (all []string) {
	f.t.Helper()
	found, err := f.RefusalCounts(f.t.Context(), b)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, c := range found {
		all = append(all, fmt.Sprintf("%s/%s %d: %d", c.Space, c.Key, c.Part, c.Calls))
	}
	slices.Sort(all)
	return all
}

// TestRefusalTimes: refusals are listed by the minute or by longer steps, and the first one is whole.
func TestRefusalTimes(t *testing.T) {
	f := newFixture(t)
	var rs Refusals
	for _, after := range []time.Duration{0, 59 * s, 60 * s, 5 * time.Minute, time.Hour} {
		rs.Add(Refusal{At: noon.Add(after), Identity: "user:ada", Tier: "pro", Space: "demo", Task: "draw", Err: &RunsExceededError{}})
	}
	if err := rs.save(t.Context(), f.Ledger); err != nil {
		t.Fatal(err)
	}
	for step, want := range map[time.Duration]string{0: "0s 2, 1m0s 1, 5m0s 1", 10 * time.Minute: "0s 4"} {
		found, err := f.RefusalTimes(t.Context(), noon.Add(30*s), noon.Add(time.Hour), step)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range found {
			all = append(all, fmt.Sprintf("%s %d", c.At.Sub(noon), c.Calls))
		}
		if got := strings.Join(all, ", "); got != want {
			t.Errorf("in steps of %s: %s, want %s", step, got, want)
		}
	}
}

// TestRefusalCounts: counts are summed by the minute, by each dimension. What could not be written is written later.
func TestRefusalCounts(t *testing.T) {
	f := newFixture(t)
	var rs Refusals
	add := func(after time.Duration, identity, space, task, tier string) {
		rs.Add(Refusal{At: noon.Add(after), Identity: identity, Tier: tier, Space: space, Task: task, Err: &RunsExceededError{}})
	}
	add(0, "user:ada", "demo", "draw", "pro")
	add(59*s, "user:ada", "demo", "draw", "pro")
	if err := rs.save(t.Context(), f.Ledger); err != nil {
		t.Fatal(err)
	}
	add(30*s, "user:ada", "demo", "draw", "pro")
	add(time.Hour, "ip:203.0.113.7", "demo", "sing", "anonymous")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rs.save(over, f.Ledger); err == nil {
		t.Error("a write with a context that is over succeeded")
	}
	add(time.Hour, "ip:203.0.113.7", "demo", "sing", "anonymous")
	if err := rs.save(t.Context(), f.Ledger); err != nil {
		t.Fatal(err)
	}
	if err := rs.save(t.Context(), f.Ledger); err != nil { // nothing is counted twice
		t.Fatal(err)
	}
	for by, want := range map[Dimension][]string{
		ByPerson:   {"/ip:203.0.113.7 2: 2", "/user:ada 0: 3"},
		BySpace:    {"/demo 0: 3", "/demo 2: 2"},
		ByFunction: {"demo/draw 0: 3", "demo/sing 2: 2"},
		ByTier:     {"/anonymous 2: 2", "/pro 0: 3"},
	} {
		if got := f.counts(Breakdown{From: noon, To: noon.Add(2 * time.Hour), Part: 30 * time.Minute, By: by}); !slices.Equal(got, want) {
			t.Errorf("by %s: %v, want %v", by, got, want)
		}
	}
	if got := f.counts(Breakdown{From: noon.Add(30 * s), To: noon.Add(time.Hour), Part: time.Hour, By: BySpace}); !slices.Equal(got, []string{"/demo 0: 3"}) {
		t.Errorf("from the middle of a minute: %v", got)
	}
	if err := f.ForgetRefusals(t.Context(), noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := f.counts(Breakdown{From: noon, To: noon.Add(2 * time.Hour), Part: 2 * time.Hour, By: BySpace}); !slices.Equal(got, []string{"/demo 0: 2"}) {
		t.Errorf("after the retention period: %v", got)
	}
}

// TestRefusalsAreSaved: Run writes while it runs, and once more at its end. Counts are bounded.
func TestRefusalsAreSaved(t *testing.T) {
	f := newFixture(t)
	var rs Refusals
	for i := range maxUnsaved + 10 {
		rs.Add(Refusal{At: noon, Identity: fmt.Sprint("ip:", i), Space: "demo", Err: &RunsExceededError{}})
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		rs.Run(ctx, f.Ledger, func(err error) { t.Error(err) })
	}()
	hour := Breakdown{From: noon, To: noon.Add(time.Hour), Part: time.Hour, By: BySpace}
	want := fmt.Sprintf("/demo 0: %d", maxUnsaved)
	for began := time.Now(); !slices.Equal(f.counts(hour), []string{want}); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("stored: %v, want %s", f.counts(hour), want)
		}
	}
	rs.Add(Refusal{At: noon, Identity: "user:ada", Space: "demo", Err: &RunsExceededError{}})
	stop()
	<-ended
	if got := f.counts(hour); !slices.Equal(got, []string{fmt.Sprintf("/demo 0: %d", maxUnsaved+1)}) {
		t.Errorf("after the end: %v", got)
	}
}

// TestMatching: filters, and pages without a gap.
func TestMatching(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.use(fmt.Sprint("lease-", i), 2*s, noon.Add(time.Duration(i)*time.Hour))
	}
	f.mustHold("other", 3*s, noon.Add(9*time.Hour), func(r *HoldRequest) { r.Space, r.Task = "second", "sing" })
	if err := f.Grant(t.Context(), Adjustment{Identity: "user:ada", Amount: 10 * s}); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		filter EntryFilter
		want   int
	}{
		"all":        {EntryFilter{}, 12},
		"a kind":     {EntryFilter{Kind: KindSettle}, 5},
		"a Space":    {EntryFilter{Space: "second"}, 1},
		"a function": {EntryFilter{Task: "draw"}, 10},
		"a time":     {EntryFilter{From: noon.Add(time.Hour), To: noon.Add(3 * time.Hour)}, 4},
		"together":   {EntryFilter{Space: "demo", Kind: KindHold, To: noon.Add(2 * time.Hour)}, 2},
		"none":       {EntryFilter{Space: "'; --"}, 0},
	} {
		seen := map[int64]bool{}
		for filter := row.filter; ; {
			page, err := f.Matching(t.Context(), "user:ada", filter, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				seen[e.ID] = true
			}
			if len(page) < 2 {
				break
			}
			filter.Before = page[1].ID
		}
		if len(seen) != row.want {
			t.Errorf("%s: %d lines in pages of 2, want %d", name, len(seen), row.want)
		}
	}
}
