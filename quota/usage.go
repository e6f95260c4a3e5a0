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
	Median      time.Duration // half of the calls used at most this; with UsageQuery.Shares
	Most        time.Duration // 98 % of the calls used at most this; with UsageQuery.Shares
}

// UsageQuery selects the calls of a Usage.
type UsageQuery struct {
	Identity string // only the calls of this account; "": of all
	From, To time.Time
	Shares   bool // also read Median and Most, which takes five times as long
}

// Usages returns the Usage of each function from a time on, before another time (zero: no end), ordered by Space and function.
func (l *Ledger) Usages(ctx context.Context, q UsageQuery) ([]Usage, error) {
	where, values := "", []any{ReasonReleased, ReasonDeadline, q.From.UnixMilli()}
	if !q.To.IsZero() {
		where, values = where+" AND at < ?", append(values, q.To.UnixMilli())
	}
	if q.Identity != "" { // a condition with OR would not use the index ledger_settled
		where, values = where+" AND identity = ?", append(values, q.Identity)
	}
	calls, shares := "", "0, 0"
	if q.Shares {
		calls = `, count(*) OVER (PARTITION BY space, task, factor) AS calls, row_number() OVER (PARTITION BY space, task, factor ORDER BY charged_ms) AS position`
		shares = `min(used) FILTER (WHERE position * 100 >= calls * 50), min(used) FILTER (WHERE position * 100 >= calls * 98)`
	}
	rows, err := l.reads.QueryContext(ctx, `SELECT space, task, factor, count(*), sum(reason = ?), max(declared), max(used), sum(used) / count(*), `+shares+` FROM (
			SELECT space, task, factor, reason, held_ms / factor AS declared, charged_ms / factor AS used`+calls+`
			FROM ledger WHERE kind = 'settle' AND reason IN (?, ?) AND task <> '' AND charged_ms > 0 AND at >= ?`+where+`)
		GROUP BY space, task, factor ORDER BY space, task, factor`, append([]any{ReasonDeadline}, values...)...)
	return sqlrows.Collect(rows, err, "compare declared with used seconds", func(row sqlrows.Scanner) (u Usage, err error) {
		err = row.Scan(&u.Space, &u.Task, &u.Factor, &u.Calls, &u.Overstayed, (*millis)(&u.Declared), (*millis)(&u.Longest), (*millis)(&u.Mean),
			(*millis)(&u.Median), (*millis)(&u.Most))
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

// tightCalls is the number of calls from which Tight has two calls above its percentile.
const tightCalls = 100

// Tight returns the duration, in whole seconds, that 98 % of the calls would have fitted into, if it is at most 80 % of what Advice
// permits. The other calls would be ended at their deadline, so it is a choice and no advice. ok is false with few calls, or if
// calls were ended already. factor is that of Advice.
func (u Usage) Tight(factor float64) (declare time.Duration, ok bool) {
	safe, advised := u.Advice(factor)
	if !advised {
		safe = time.Duration(float64(u.Declared) / factor)
	}
	declare = max(adviceLeast, seconds(float64(u.Most+time.Millisecond)/factor))
	return declare, u.Most > 0 && u.Calls >= tightCalls && u.Overstayed == 0 && float64(declare) <= float64(safe)*adviceGain
}

// seconds rounds up to whole seconds.
func seconds(d float64) time.Duration {
	return time.Duration(math.Ceil(d/float64(time.Second))) * time.Second
}

// Fits returns how many calls fit into left. Each holds its declared quota at the start and is charged what it used at the end.
// So together calls fit that run at the same time, and inTurn calls that run one after another: the last one still needs its
// whole hold. With 198 s left, a hold of 60 s and a use of 3 s, these are 3 and 47. All amounts include the factor of the size.
// inTurn counts up to MostInTurn, unless more fit together.
func Fits(left, held, used time.Duration) (together, inTurn int) {
	if held <= 0 || left < held {
		return 0, 0
	}
	used = min(max(used, time.Millisecond), held)
	together, inTurn = int(left/held), int((left-held)/used)+1
	return together, max(together, min(inTurn, MostInTurn))
}

// MostInTurn is the count of calls one after another that stands for itself and more. Calls of a few milliseconds would fit half a
// million times, which says nothing about the next ones.
const MostInTurn = 1000

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
