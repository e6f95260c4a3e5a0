package lease

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// addEnded inserts one ended lease on a Slot, and its hold.
func addEnded(t testing.TB, tx *sql.Tx, n, slot int, granted time.Time, used time.Duration, state State, reason, size string) {
	t.Helper()
	id := fmt.Sprintf("%08x%024x", n, 0)
	at := granted.UnixMilli()
	_, err := tx.Exec(`INSERT INTO leases (id, space, identity, task, size, declared_ms, held_ms, state, slot, device, admitted_at, granted_at, active_at, ended_at, charged_ms, reason)
		VALUES (?, ?, ?, '7', ?, 60000, 60000, ?, ?, 'GPU-fake-0', ?, ?, ?, ?, ?, ?)`,
		id, fmt.Sprintf("space-%d", n%3), fmt.Sprintf("user:u%d", n%5), size, state, slot, at-1000, at, at+200, at+used.Milliseconds(), used.Milliseconds(), reason)
	if err != nil {
		t.Fatal(err)
	}
}

// TestTimelineOfNodes distinguishes the Slots of machines that have the same number.
func TestTimelineOfNodes(t *testing.T) {
	h := newBrokerHarness(t)
	tx, err := h.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		addEnded(t, tx, n, 0, noon.Add(time.Duration(n)*time.Second), 500*time.Millisecond, Released, "released", "large")
	}
	if _, err := tx.Exec(`UPDATE leases SET machine = 'gpu2' WHERE id LIKE '00000001%'`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{0, time.Minute} {
		got, err := h.Timeline(t.Context(), noon, noon.Add(time.Hour), step)
		if err != nil {
			t.Fatal(err)
		}
		var nodes []string
		for i, n := range got.Bars.Node {
			nodes = append(nodes, fmt.Sprintf("%s: %d", got.Nodes[n], got.Bars.Calls[i]))
		}
		want := []string{": 1", ": 1", "gpu2: 1"}
		if step > 0 {
			want = []string{": 2", "gpu2: 1"}
		}
		if !slices.Equal(nodes, want) {
			t.Errorf("step %v: bars %q, want %q", step, nodes, want)
		}
	}
}

// TestTimeline reads the same calls at two levels of detail.
func TestTimeline(t *testing.T) {
	h := newBrokerHarness(t)
	tx, err := h.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 120 { // one each 10 s on two Slots, of 3 s
		state, reason := Released, "released"
		if n == 33 {
			state, reason = Expired, "deadline"
		}
		addEnded(t, tx, n, n%2, noon.Add(time.Duration(n/2)*10*time.Second), 3*time.Second, state, reason, "large")
	}
	addEnded(t, tx, 500, 0, noon.Add(20*time.Minute), 150*time.Second, Revoked, "ended by root: demo", "xlarge")
	addEnded(t, tx, 501, 0, noon.Add(2*time.Hour), time.Second, Released, "released", "large") // later
	for _, statement := range []string{
		`UPDATE leases SET slot = NULL, granted_at = NULL, state = 'timed out', active_at = NULL WHERE id LIKE '00000032%'`,
	} {
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	total := func(all []int64) (sum int64) {
		for _, one := range all {
			sum += one
		}
		return sum
	}
	raw, err := h.Timeline(t.Context(), noon, noon.Add(time.Hour), 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(raw.Bars.Slot); n != 120 || len(raw.Bars.Lease) != n || len(raw.Bars.Reason) != n { // 119 and the xlarge one
		t.Fatalf("%d bars, want 120: %+v", n, raw.Bars)
	}
	if !slices.Equal(raw.Missed.At, []int64{253_000}) || !slices.Equal(raw.Missed.Calls, []int{1}) || !slices.Equal(raw.Missed.Kind, []MissedKind{MissedTimeout}) {
		t.Errorf("missed calls: %+v", raw.Missed)
	}
	last := slices.Index(raw.Bars.Lease, "000001f4")
	if last < 0 || raw.Bars.Whole[last] != 1 || EndKinds[raw.Bars.End[last]] != EndOperator || raw.Bars.Start[last] != 1_200_000 || raw.Bars.Length[last] != 150_000 || raw.Bars.Idle[last] != 200 || raw.Reasons[raw.Bars.Reason[last]] != "ended by root: demo" {
		t.Errorf("the bar of the operator's end: %d in %+v", last, raw)
	}
	for step, most := range map[time.Duration]int{time.Minute: 2*20 + 3, 10 * time.Minute: 2*3 + 3} {
		merged, err := h.Timeline(t.Context(), noon, noon.Add(time.Hour), step)
		if err != nil {
			t.Fatal(err)
		}
		calls, killed := 0, 0
		for i, n := range merged.Bars.Calls {
			calls, killed = calls+n, killed+merged.Bars.Killed[i]
			if merged.Bars.Lease[i] != "" || merged.Bars.Space[i] != -1 {
				t.Errorf("a bar of %d calls names lease %q", n, merged.Bars.Lease[i])
			}
		}
		if n := len(merged.Bars.Slot); n > most || calls != 120 || killed != 2 || total(merged.Bars.Busy) != total(raw.Bars.Busy) || total(merged.Bars.Declared) != total(raw.Bars.Declared) {
			t.Errorf("steps of %s: %d bars of %d calls, %d killed, %d ms busy; want at most %d bars of 120 calls, 2 killed, %d ms", step, n, calls, killed, total(merged.Bars.Busy), most, total(raw.Bars.Busy))
		}
		for i := 1; i < len(merged.Bars.Slot); i++ {
			if merged.Bars.Slot[i] == merged.Bars.Slot[i-1] && merged.Bars.Start[i] < merged.Bars.Start[i-1]+merged.Bars.Length[i-1] {
				t.Errorf("bar %d begins before the end of the one before", i)
			}
		}
	}
	if auto, err := h.Timeline(t.Context(), noon, noon.Add(100*24*time.Hour), AutomaticStep); err != nil || auto.StepSeconds != 4320 {
		t.Errorf("a long period without a step: %+v, %v", auto, err)
	}
	for _, wrong := range []struct{ period, step time.Duration }{{7 * 24 * time.Hour, 0}, {7 * 24 * time.Hour, time.Second}} {
		_, err := h.Timeline(t.Context(), noon, noon.Add(wrong.period), wrong.step)
		if _, is := errors.AsType[*TimelineSizeError](err); !is {
			t.Errorf("%s in steps of %s: %v, want TimelineSizeError", wrong.period, wrong.step, err)
		}
	}
}
