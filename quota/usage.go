package quota

import (
	"context"
	"math"
	"time"

	"spacehost/internal/sqlrows"
)

// Reasons of settlements that show how long a function needs. Other leases ended early: failed, cancelled, lost.
const (
	ReasonReleased = "released" // the function returned
	ReasonDeadline = "deadline" // the host ended the function at its declared duration
)

// Usage compares what the calls of one function and size declared with what they used. Seconds are those of the lease, without
// the factor of the size.
type Usage struct {
	Space, Task string
	Factor      int           // quota seconds per second
	Calls       int           // that returned, or were ended at their deadline
	Overstayed  int           // those that were ended at their deadline
	Declared    time.Duration // the longest declaration
	Longest     time.Duration // the longest use
	Mean        time.Duration // the average use
}

// Usages returns the Usage of each function since a time, ordered by Space and function. identity restricts it to the calls of
// one account; "" means all.
func (l *Ledger) Usages(ctx context.Context, identity string, since time.Time) ([]Usage, error) {
	rows, err := l.reads.QueryContext(ctx, `SELECT space, task, factor, count(*), sum(reason = ?), max(held_ms / factor), max(charged_ms / factor), sum(charged_ms / factor) / count(*)
		FROM ledger WHERE kind = 'settle' AND reason IN (?, ?) AND task <> '' AND charged_ms > 0 AND at >= ? AND (? = '' OR identity = ?)
		GROUP BY space, task, factor ORDER BY space, task, factor`,
		ReasonDeadline, ReasonReleased, ReasonDeadline, since.UnixMilli(), identity, identity)
	return sqlrows.Collect(rows, err, "compare declared with used seconds", func(row sqlrows.Scanner) (u Usage, err error) {
		err = row.Scan(&u.Space, &u.Task, &u.Factor, &u.Calls, &u.Overstayed, (*millis)(&u.Declared), (*millis)(&u.Longest), (*millis)(&u.Mean))
		return u, err
	})
}

// The rule of Usage.Advice.
const (
	adviceCalls  = 3               // fewer calls prove nothing
	adviceMargin = 1.5             // of the longest use. A call that exceeds its declaration is killed, so no percentile is cut off
	adviceLeast  = 5 * time.Second // for the variation of a cold start
	adviceGain   = 0.8             // of the declaration: a smaller change is not worth a call that is killed
)

// Advice returns the duration that the function should declare, in whole seconds. ok is false without a reason for another one.
// factor is the number of seconds that the spaces package requests for one that a function declares: 1.5 on an RTX PRO 6000
// (spaces 0.51.3, zero/configs.json, duration_factor). The declarations of a Usage are those requests.
//
//  1. Calls were ended at their deadline: half as much again as was declared.
//  2. Three or more calls, and the longest use plus half of it is at most 80 % of the declaration: that value, at least 5 s.
func (u Usage) Advice(factor float64) (declare time.Duration, ok bool) {
	declared := float64(u.Declared) / factor
	if u.Overstayed > 0 {
		return seconds(declared * adviceMargin), true
	}
	declare = max(adviceLeast, seconds(float64(u.Longest)*adviceMargin/factor))
	return declare, u.Calls >= adviceCalls && float64(declare) <= declared*adviceGain
}

// seconds rounds up to whole seconds.
func seconds(d float64) time.Duration {
	return time.Duration(math.Ceil(d/float64(time.Second))) * time.Second
}

// Fits returns how many calls fit into left. Each holds its declared quota at the start and is charged what it used at the end.
// So together calls fit that run at the same time, and inTurn calls that run one after another: the last one still needs its
// whole hold. With 198 s left, a hold of 60 s and a use of 3 s, these are 3 and 47. All amounts include the factor of the size.
func Fits(left, held, used time.Duration) (together, inTurn int) {
	if held <= 0 || left < held {
		return 0, 0
	}
	used = min(max(used, time.Millisecond), held)
	return int(left / held), int((left-held)/used) + 1
}

// Day returns Fits for a whole quota of the tier, within its runs and its longest call. ok is false for a tier without a limit.
func (t Tier) Day(held, used time.Duration) (together, inTurn int, ok bool) {
	if t.Unlimited {
		return 0, 0, false
	}
	if held > t.LongestCall() {
		return 0, 0, true
	}
	together, inTurn = Fits(t.Quota, held, used)
	if t.Runs > 0 {
		together, inTurn = min(together, t.Runs), min(inTurn, t.Runs)
	}
	return together, inTurn, true
}
