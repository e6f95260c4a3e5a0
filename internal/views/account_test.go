package views

import (
	"math"
	"reflect"
	"testing"
	"time"
)

// TestAccountOfAMoment: what passes with time alone is no change, and the next return is that of seconds or runs.
func TestAccountOfAMoment(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	at := func(after time.Duration) *time.Time { return new(now.Add(after)) }
	for name, row := range map[string]struct {
		account Account
		want    time.Duration
	}{
		"no use yet":         {Account{}, math.MaxInt64},
		"seconds":            {Account{ResetsAt: at(time.Hour)}, time.Hour},
		"runs before":        {Account{ResetsAt: at(time.Hour), Runs: &Runs{ResetsAt: at(time.Minute)}}, time.Minute},
		"runs after":         {Account{ResetsAt: at(time.Hour), Runs: &Runs{ResetsAt: at(2 * time.Hour)}}, time.Hour},
		"runs without a use": {Account{Runs: &Runs{}}, math.MaxInt64},
		"it is over":         {Account{ResetsAt: at(0)}, math.MaxInt64},
	} {
		row.account.Now = now
		if got := row.account.NextReturn(); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
		later := row.account
		later.Now, later.ResetsIn = now.Add(time.Second), "0:59:59"
		if later.Runs != nil {
			runs := *later.Runs
			runs.ResetsIn = "0:59:59"
			later.Runs = &runs
		}
		if !reflect.DeepEqual(later.WithoutMoment(), row.account.WithoutMoment()) {
			t.Errorf("%s: a second is a change", name)
		}
		if later.Runs != nil && later.Runs.ResetsIn == "" {
			t.Errorf("%s: the account has lost its countdown", name)
		}
	}
}
