package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// two is a tier with a limit of two runs.
func two(r *HoldRequest) { r.Tier.Runs = 2 }

func wantRunsExceeded(t *testing.T, err error, used, reserved int, wait time.Duration) {
	t.Helper()
	e, ok := errors.AsType[*RunsExceededError](err)
	if !ok || e.Runs.Used != used || e.Runs.Reserved != reserved || e.Wait != wait {
		t.Errorf("got %v, want %d runs used, %d reserved and a wait of %v", err, used, reserved, wait)
	}
}

// TestRunReturnsAfterExactlyADay: not with the window, and not a millisecond earlier.
func TestRunReturnsAfterExactlyADay(t *testing.T) {
	f := newFixture(t)
	for i, at := range []time.Duration{0, 7 * time.Hour} {
		lease := fmt.Sprint("lease-", i)
		f.mustHold(lease, 10*s, noon.Add(at), two)
		f.open(lease, noon.Add(at+5*s))
		f.mustSettle(lease, s, noon.Add(at+8*s))
	}
	first := noon.Add(5*s + Span)
	_, err := f.hold("refused", 10*s, noon.Add(8*time.Hour), two)
	wantRunsExceeded(t, err, 2, 0, first.Sub(noon.Add(8*time.Hour)))
	if refused, ok := AsRefused(err); !ok || refused.Reason() != "2 of 2 runs in 24 hours are used" {
		t.Errorf("got the reason %v", refused)
	}
	_, err = f.hold("early", 10*s, first.Add(-time.Millisecond), two)
	wantRunsExceeded(t, err, 2, 0, time.Millisecond)
	f.mustHold("third", 10*s, first, two)
	if b, err := f.Runs(t.Context(), "user:ada", Tier{Runs: 2}, first); err != nil || b.Used != 1 || b.Reserved != 1 || b.Left() != 0 || !b.ResetsAt.Equal(first.Add(7*time.Hour)) {
		t.Errorf("runs: got %+v (%v), want one used, one reserved, and the next back 7 hours later", b, err)
	}
	f.check()
}

// TestWaitingCallsReserveRuns: two waiting calls cannot both pass on the last run, and a call without a GPU gives its run back.
func TestWaitingCallsReserveRuns(t *testing.T) {
	f := newFixture(t)
	f.mustHold("first", 10*s, noon, two)
	f.mustHold("second", 10*s, noon, two)
	_, err := f.hold("third", 10*s, noon, two)
	wantRunsExceeded(t, err, 0, 2, Span)
	f.open("first", noon)
	if err := f.settleRan("second", 0, time.Time{}, noon.Add(s)); err != nil {
		t.Fatal(err)
	}
	f.mustHold("third", 10*s, noon.Add(s), two)
	_, err = f.hold("fourth", 10*s, noon.Add(s), two)
	wantRunsExceeded(t, err, 1, 1, Span-s) // the run of first
	f.check()
}

// TestRunIsCountedOnce: however often its lease becomes active, whether it was charged or not, and not if it was taken back.
func TestRunIsCountedOnce(t *testing.T) {
	f := newFixture(t)
	for name, row := range map[string]struct {
		opened, start int
		ran           time.Time
		want          int
	}{
		"active twice":             {opened: 2, ran: noon, want: 1},
		"active at once":           {start: 1, ran: noon, want: 1},
		"granted and not claimed":  {ran: noon, want: 1},
		"never granted":            {want: 0},
		"active at once, and back": {start: 1, want: 0},
		"active, and back":         {opened: 1, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			key := "user:" + name
			f.mustHold(name, 10*s, noon, func(r *HoldRequest) { r.Identity, r.Start = key, row.start > 0 })
			for range row.opened {
				f.open(name, noon)
			}
			if err := f.settleRan(name, 0, row.ran, noon.Add(s)); err != nil {
				t.Fatal(err)
			}
			if err := f.settleRan(name, 0, noon, noon.Add(s)); !errors.As(err, new(*SettledError)) {
				t.Errorf("settled twice: %v", err)
			}
			if r, err := f.Runs(t.Context(), key, Tier{Runs: 2}, noon.Add(s)); err != nil || r.Used != row.want || r.Reserved != 0 {
				t.Errorf("got %+v (%v), want %d used", r, err, row.want)
			}
			f.check()
		})
	}
}

// TestAdvisoryRunsRefuseNothing: Hold only reports that the runs were used up.
func TestAdvisoryRunsRefuseNothing(t *testing.T) {
	f := newFixture(t)
	for i := range 4 {
		err := f.inTx(func(ctx context.Context, tx *sql.Tx) error {
			held, err := f.Hold(ctx, tx, HoldRequest{
				Lease: fmt.Sprint(i), Identity: "local", Tier: Tier{Quota: 300 * s, Runs: 2, RunsAdvisory: true}, Declared: s, Factor: 1, Now: noon, Start: true,
			})
			if held.OverRuns != (i >= 2) {
				t.Errorf("hold %d: got over runs %v", i, held.OverRuns)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGrantAndResetOfRuns: a grant raises the limit for a day, and a reset returns the runs of calls that have ended.
func TestGrantAndResetOfRuns(t *testing.T) {
	f := newFixture(t)
	used := func(now time.Time, want Runs) {
		t.Helper()
		r, err := f.Runs(t.Context(), "user:ada", Tier{Runs: 2}, now)
		if err != nil {
			t.Fatal(err)
		}
		r.ResetsAt = nil
		if *r != want {
			t.Errorf("at %v: got %+v, want %+v", now, *r, want)
		}
	}
	f.use("a", s, noon.Add(-time.Hour))
	f.mustHold("open", s, noon, two)
	f.open("open", noon)
	if err := f.Grant(t.Context(), Adjustment{Identity: "user:ada", Runs: 3, By: "operator"}); err != nil {
		t.Fatal(err)
	}
	used(noon, Runs{Limit: 5, Granted: 3, Used: 2})
	if err := f.Reset(t.Context(), Adjustment{Identity: "user:ada", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	used(noon, Runs{Limit: 5, Granted: 3, Used: 1})
	used(noon.Add(Span), Runs{Limit: 2})
	if e := f.entries(); e[0].Kind != KindReset || e[0].Runs != 1 || e[0].Returned != s || e[1].Kind != KindGrant || e[1].Runs != 3 || e[1].Returned != 0 {
		t.Errorf("entries: %+v", e[:2])
	}
	f.mustSettle("open", s, noon.Add(s))
	f.check()
	for _, wrong := range []Adjustment{{Runs: -1}, {Runs: MostRuns + 1}, {}, {Runs: 1, Amount: time.Millisecond}} {
		wrong.Identity = "user:ada"
		if err := f.Grant(t.Context(), wrong); !errors.As(err, new(*AdjustmentError)) {
			t.Errorf("grant %+v: %v", wrong, err)
		}
	}
}

// TestRunsSurviveForget: a lease may be granted its GPU after the end of its window.
func TestRunsSurviveForget(t *testing.T) {
	f := newFixture(t)
	f.use("old", s, noon)
	late := noon.Add(Span - s)
	f.mustHold("late", 10*s, late)
	f.open("late", late.Add(20*time.Hour)) // after a long wait
	f.mustSettle("late", s, late.Add(20*time.Hour+s))
	now := late.Add(43 * time.Hour)
	if gone := f.forget(now.Add(-Span), 100); gone.Windows != 0 {
		t.Errorf("forgot %+v, and a run of that window still counts", gone)
	}
	if r, err := f.Runs(t.Context(), "user:ada", Tier{Runs: 2}, now); err != nil || r.Used != 1 {
		t.Errorf("got %+v (%v), want the late run", r, err)
	}
	if gone := f.forget(now.Add(time.Hour-Span+2*s), 100); gone.Windows != 1 || f.count(`SELECT count(*) FROM runs`) != 0 {
		t.Errorf("an hour later: forgot %+v, want the window and all runs", gone)
	}
	f.check()
}

// TestReanchorRuns: a run that was counted by a clock that was ahead counts from now on.
func TestReanchorRuns(t *testing.T) {
	f := newFixture(t)
	f.use("ahead", s, noon.Add(48*time.Hour))
	if _, err := f.Reanchor(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Runs(t.Context(), "user:ada", Tier{Runs: 2}, noon); err != nil || r.Used != 1 || !r.ResetsAt.Equal(noon.Add(Span)) {
		t.Errorf("got %+v (%v), want one run until a day from now", r, err)
	}
}

// TestCheckFindsWrongRunsAndCredits: the tables beside the ledger are derived from it.
func TestCheckFindsWrongRunsAndCredits(t *testing.T) {
	for change, want := range map[string]string{
		`UPDATE runs SET at = NULL`:                                    "the run of lease a differs from its settlement",
		`DELETE FROM runs`:                                             "the run of lease a differs from its settlement",
		`INSERT INTO runs VALUES ('b', 'user:ada', 1, 0)`:              "the run of lease b has no hold",
		`UPDATE credits SET used_ms = used_ms + 1`:                     "the credits of user:ada differ from its ledger entries",
		`UPDATE windows SET credit_charged_ms = credit_charged_ms + 1`: "the sums of window 1 of user:ada differ",
	} {
		f := newFixture(t)
		f.credit(30 * s)
		f.use("a", 60*s, noon)
		f.check()
		if _, err := f.db.Exec(change); err != nil {
			t.Fatal(err)
		}
		if err := f.checkError(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", change, err, want)
		}
	}
}
