package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"spacehost/internal/sqlrows"
)

// Refusal is a call that was refused by the quota.
type Refusal struct {
	At       time.Time
	Identity string // the owner of the quota
	Tier     string // the name of its tier
	Space    string
	Task     string // the function's name, if known
	Err      error  // a Refused
}

// Refused is an error with which Hold refuses a call by the rules of its account.
type Refused interface {
	error
	// Reason explains the refusal to a user.
	Reason() string
}

// AsRefused returns the refusal in err, if it is one.
func AsRefused(err error) (Refused, bool) {
	var refused Refused
	ok := errors.As(err, &refused)
	return refused, ok
}

// Bounds of Refusals.
const (
	maxRefusals    = 2_000
	maxPerIdentity = 10
	maxUnsaved     = 10_000 // counts, while the database cannot be written
)

// Refusals holds the last refusals since the start of the host, so that users can read the reason, and counts all of them for
// the database. A refusal itself writes nothing: a client that is refused may call again at once, for hours. So the reasons stay
// in memory, and the counts are written once a second at most. The zero Refusals is empty. It may be used by many goroutines.
type Refusals struct {
	mu      sync.Mutex
	all     []Refusal // oldest first
	unsaved map[refusalKey]int
	added   chan struct{} // buffered: there are unsaved counts; see signal
}

// refusalKey is the primary key of the table refusals.
type refusalKey struct {
	minute                      int64 // its begin in unix milliseconds
	identity, space, task, tier string
}

// Add adds a refusal. At the bound it replaces the identity's oldest refusal, or the oldest of all.
func (rs *Refusals) Add(r Refusal) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.count(refusalKey{r.At.Truncate(time.Minute).UnixMilli(), r.Identity, r.Space, r.Task, r.Tier}, 1)
	select {
	case rs.signal() <- struct{}{}:
	default:
	}
	first, of := -1, 0
	for i, other := range rs.all {
		if other.Identity == r.Identity {
			if of++; first < 0 {
				first = i
			}
		}
	}
	switch {
	case of >= maxPerIdentity:
		rs.all = slices.Delete(rs.all, first, first+1)
	case len(rs.all) >= maxRefusals:
		rs.all = slices.Delete(rs.all, 0, 1)
	}
	rs.all = append(rs.all, r)
}

// Of returns an identity's refusals, newest first.
func (rs *Refusals) Of(identity string) (found []Refusal) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range slices.Backward(rs.all) {
		if r.Identity == identity {
			found = append(found, r)
		}
	}
	return found
}

// count is called with mu locked. Beyond the bound, new keys are not counted.
func (rs *Refusals) count(key refusalKey, calls int) {
	if _, known := rs.unsaved[key]; !known && len(rs.unsaved) >= maxUnsaved {
		return
	}
	if rs.unsaved == nil {
		rs.unsaved = map[refusalKey]int{}
	}
	rs.unsaved[key] += calls
}

// signal is called with mu locked.
func (rs *Refusals) signal() chan struct{} {
	if rs.added == nil {
		rs.added = make(chan struct{}, 1)
	}
	return rs.added
}

// saveEvery is the shortest time between two writes of counts.
const saveEvery = time.Second

// Run writes the counts to the database until ctx ends, and once more then. Counts that cannot be written are retried with the next
// refusals; failed receives the error.
func (rs *Refusals) Run(ctx context.Context, l *Ledger, failed func(error)) {
	rs.mu.Lock()
	added := rs.signal()
	rs.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			rs.saveOr(context.WithoutCancel(ctx), l, failed)
			return
		case <-added:
			rs.saveOr(context.WithoutCancel(ctx), l, failed)
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveEvery):
		}
	}
}

func (rs *Refusals) saveOr(ctx context.Context, l *Ledger, failed func(error)) {
	if err := rs.save(ctx, l); err != nil {
		failed(err)
	}
}

// save writes the counts in one transaction. After an error they are kept.
func (rs *Refusals) save(ctx context.Context, l *Ledger) error {
	rs.mu.Lock()
	counts := rs.unsaved
	rs.unsaved = nil
	rs.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	err := l.addRefusals(ctx, counts)
	if err == nil {
		return nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for key, calls := range counts {
		rs.count(key, calls)
	}
	return err
}

func (l *Ledger) addRefusals(ctx context.Context, counts map[refusalKey]int) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write refusals: %w", err)
	}
	defer tx.Rollback()
	for key, calls := range counts {
		_, err := tx.ExecContext(ctx, `INSERT INTO refusals (at, identity, space, function, tier, calls) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET calls = calls + excluded.calls`, key.minute, key.identity, key.space, key.task, key.tier, calls)
		if err != nil {
			return fmt.Errorf("write refusals: %w", err)
		}
	}
	return tx.Commit()
}

// RefusalCount is the number of refused calls of one key in one part of a Breakdown.
type RefusalCount struct {
	Key, Space string // Space only by function
	Part       int
	Calls      int
}

// RefusalCounts returns the refused calls of a Breakdown in no order. They are stored by the minute, so its ends are exact to a
// minute. Calls of the last second may be missing. Errors: of the database.
func (l *Ledger) RefusalCounts(ctx context.Context, b Breakdown) ([]RefusalCount, error) {
	key, space := b.By.Columns()
	rows, err := l.reads.QueryContext(ctx, `SELECT `+key+`, `+space+`, max(0, at - ?1) / ?2 AS part, sum(calls) FROM refusals
		WHERE at >= ?3 AND at < ?4 GROUP BY 1, 2, 3`,
		b.From.UnixMilli(), b.Part.Milliseconds(), b.From.Truncate(time.Minute).UnixMilli(), b.To.UnixMilli())
	return sqlrows.Collect(rows, err, "count refusals", func(row sqlrows.Scanner) (c RefusalCount, err error) {
		err = row.Scan(&c.Key, &c.Space, &c.Part, &c.Calls)
		return c, err
	})
}

// RefusedCalls are calls that the quota refused within one step of a period.
type RefusedCalls struct {
	At    time.Time // of the first minute
	Calls int
}

// RefusalTimes returns the refused calls of a period by time, in steps of at least a minute, as they are stored. The step in which the
// period begins is whole. Errors: of the database.
func (l *Ledger) RefusalTimes(ctx context.Context, from, to time.Time, step time.Duration) ([]RefusedCalls, error) {
	whole := max(step, time.Minute).Milliseconds()
	rows, err := l.reads.QueryContext(ctx, `SELECT min(at), sum(calls) FROM refusals WHERE at >= ?1 / ?3 * ?3 AND at < ?2 GROUP BY at / ?3 ORDER BY 1`,
		from.UnixMilli(), to.UnixMilli(), whole)
	return sqlrows.Collect(rows, err, "list refusals by time", func(row sqlrows.Scanner) (c RefusedCalls, err error) {
		var at int64
		err = row.Scan(&at, &c.Calls)
		c.At = time.UnixMilli(at).UTC()
		return c, err
	})
}

// ForgetRefusals deletes the counts before a time. Errors: of the database.
func (l *Ledger) ForgetRefusals(ctx context.Context, before time.Time) error {
	if _, err := l.db.ExecContext(ctx, `DELETE FROM refusals WHERE at < ?`, before.UnixMilli()); err != nil {
		return fmt.Errorf("delete refusals: %w", err)
	}
	return nil
}
