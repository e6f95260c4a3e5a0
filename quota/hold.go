package quota

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// HoldRequest requests a hold for a Lease that is being admitted.
type HoldRequest struct {
	Lease, Identity string
	Tier            Tier
	Space, Task     string
	Declared        time.Duration // as declared by the Task; the caller has replaced 0 by 1 s
	Factor          int           // see Factor
	Now             time.Time
	Pending         []Pending // this identity's open Leases; used only if holds exceed the quota
	Via             string    // the Space that spends the quota through Space on the identity's behalf; "": the identity itself
	Start           bool      // the Lease becomes active at Now, in the same transaction
}

// Pending is an open hold of the same identity.
type Pending struct {
	Lease string // identifies holds of earlier Windows; if empty, the hold counts in the current Window
	Held  time.Duration
	Until time.Time // the latest end

	// The fields below are set from the ledger.
	window int64
	via    bool
	credit time.Duration // the part of Held that comes from the credits
}

// isIn reports whether the hold counts in w.
func (p Pending) isIn(w window) bool { return p.Lease == "" || p.window == w.id }

// ExceededError refuses a hold because the quota is insufficient now.
type ExceededError struct {
	Requested, Left time.Duration // Left has what is left of the quota and of the credits
	Wait            time.Duration // estimated time until the quota suffices
	OnlyHolds       bool          // charges leave enough; only open holds exceed the quota
	Via             string        // the Space whose delegation limit is exceeded; Left is what it may still spend
}

func (e *ExceededError) Error() string {
	if e.Via != "" {
		return fmt.Sprintf("delegation limit exceeded: %v requested via %s, %v left of half the allowance, try again in %v",
			e.Requested, e.Via, e.Left, e.Wait)
	}
	return fmt.Sprintf("quota exceeded: %v requested, %v left, try again in %v", e.Requested, e.Left, e.Wait)
}

// LeftSeconds returns Left for the wire, rounded down: calls request whole seconds.
func (e *ExceededError) LeftSeconds() int { return wholeSeconds(e.Left) }

// Again returns Wait for display: from a second to a Span, even if the clock was set.
func (e *ExceededError) Again() time.Duration { return min(max(e.Wait, time.Second), Span) }

// Reason explains the refusal to a user.
func (e *ExceededError) Reason() string {
	text := fmt.Sprintf("%g s requested, %d s left", e.Requested.Seconds(), e.LeftSeconds())
	switch {
	case e.Via != "" && e.OnlyHolds:
		return text + " of the quota for calls through other Spaces: running calls hold the rest"
	case e.Via != "":
		return text + " of the quota for calls through other Spaces, which is half of the remaining quota"
	case e.OnlyHolds:
		return text + ": running calls hold the rest"
	}
	return text + ": the rest is used up until the reset"
}

// WaitSeconds returns Wait for the wire, from 1 to 86399: the spaces package reads 0 as "runs limit", a negative number as
// "illegal duration", and prints 86400 as "1 day, 0:00:00".
func (e *ExceededError) WaitSeconds() int { return waitSeconds(e.Wait) }

func waitSeconds(wait time.Duration) int {
	return int(min(max(ceil(wait, time.Second)/time.Second, 1), 86399))
}

// IllegalDurationError refuses a hold that the tier can never grant.
type IllegalDurationError struct {
	Requested, Longest time.Duration
}

// Reason explains the refusal to a user.
func (e *IllegalDurationError) Reason() string {
	if e.Longest == 0 {
		return "a call cannot take a day: the declared duration was probably negative"
	}
	return fmt.Sprintf("%g s requested, the maximum per call is %g s", e.Requested.Seconds(), e.Longest.Seconds())
}

func (e *IllegalDurationError) Error() string {
	return fmt.Sprintf("illegal duration: %v requested, %v is the longest allowed", e.Requested, e.Longest)
}

// requested returns the time to reserve, rounded up to the millisecond, the precision of SQL.
func (r HoldRequest) requested() (time.Duration, error) {
	if r.Declared <= 0 || r.Factor < 1 || r.Lease == "" || r.Identity == "" {
		return 0, fmt.Errorf("hold for lease %q of %q: declared %v x %d", r.Lease, r.Identity, r.Declared, r.Factor)
	}
	requested := multiply(ceil(r.Declared, time.Millisecond), r.Factor)
	if longest := r.Tier.LongestCall(); !r.Tier.Unlimited && requested > longest {
		return 0, &IllegalDurationError{Requested: requested, Longest: longest}
	}
	return requested, nil
}

// left returns the time that may still be held in w. It may be negative.
func (r HoldRequest) left(w window) time.Duration {
	if r.Via != "" {
		return w.leftVia(r.Tier)
	}
	return w.left(r.Tier)
}

// fits reports whether the quota suffices.
func (r HoldRequest) fits(requested time.Duration, w window) bool {
	return r.Tier.Unlimited || requested <= r.left(w)
}

// exceeded returns the refusal with the time to wait. All of pending free seconds in w or credits.
//
//  1. Charges leave too little: the wait ends at the reset.
//  2. Only holds exceed the quota: the wait ends when the earliest deadlines have freed enough, or at the reset.
func (r HoldRequest) exceeded(requested time.Duration, w window, c credits, pending []Pending) *ExceededError {
	left := r.left(w)
	e := &ExceededError{Requested: requested, Left: max(0, left) + c.left, Wait: w.untilReset(r.Now), Via: r.Via}
	charged := w
	charged.held, charged.viaHeld = 0, 0
	if requested > r.left(charged)+c.left+c.held { // 1
		return e
	}
	e.OnlyHolds = true // 2
	if freed, ok := r.freedAt(requested-c.left-left, w, pending); ok {
		e.Wait = max(0, min(e.Wait, freed.Sub(r.Now)))
	}
	return e
}

// freedAt returns the time at which the earliest deadlines have freed the missing time.
func (r HoldRequest) freedAt(missing time.Duration, w window, pending []Pending) (time.Time, bool) {
	slices.SortFunc(pending, func(a, b Pending) int { return a.Until.Compare(b.Until) })
	for _, p := range pending {
		if missing -= r.freedBy(p, w); missing <= 0 {
			return p.Until, true
		}
	}
	return time.Time{}, false
}

// freedBy returns how much left grows when p ends, if nothing of p is charged. The hold of an earlier Window frees only its
// credits. The delegation limit is half of what is left of the quota.
func (r HoldRequest) freedBy(p Pending, w window) time.Duration {
	ofQuota := p.Held - p.credit
	switch {
	case !p.isIn(w) && r.Via != "":
		return 0
	case !p.isIn(w):
		return p.credit
	case r.Via != "" && !p.via:
		return ofQuota / 2
	case r.Via != "":
		return ofQuota
	}
	return p.Held
}

// multiply never wraps round: a duration comes from the Space, and a negative hold would pass for a small one.
func multiply(d time.Duration, factor int) time.Duration {
	if d > math.MaxInt64/time.Duration(factor) {
		return math.MaxInt64
	}
	return d * time.Duration(factor)
}

// ceil rounds up to whole units.
func ceil(d, unit time.Duration) time.Duration {
	if rest := d % unit; rest > 0 && d <= math.MaxInt64-unit {
		return d - rest + unit
	}
	return d - d%unit
}

func wholeSeconds(d time.Duration) int { return int(min(d/time.Second, math.MaxInt32)) }
