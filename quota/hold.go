package quota

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// HoldRequest asks to set seconds aside for a Lease that is being admitted.
type HoldRequest struct {
	Lease, Identity string
	Tier            Tier
	Space, Task     string
	Declared        time.Duration // as the Task declares it, 0 already turned into 1 s
	Factor          int           // see Factor
	Now             time.Time
	Pending         []Pending // this identity's open Leases; read only when holds are in the way
	Via             string    // the Space that spends it through Space, on the identity's behalf; "": the identity itself
}

// Pending is an open hold of the same identity.
type Pending struct {
	Lease string // tells a hold of an earlier Window apart; if empty it counts as one of this Window
	Held  time.Duration
	Until time.Time // when it is over at the latest

	via bool // the ledger knows
}

// ExceededError refuses a hold because the quota does not suffice now.
type ExceededError struct {
	Requested, Left time.Duration
	Wait            time.Duration // until it would suffice, as far as can be known
	OnlyHolds       bool          // charges leave enough; only open holds are in the way
	Via             string        // the Space that Left is the cap of: what it may still spend through others
}

func (e *ExceededError) Error() string {
	if e.Via != "" {
		return fmt.Sprintf("cap of what Spaces may spend through others exceeded: %v requested via %s, %v left of half the allowance, try again in %v",
			e.Requested, e.Via, e.Left, e.Wait)
	}
	return fmt.Sprintf("quota exceeded: %v requested, %v left, try again in %v", e.Requested, e.Left, e.Wait)
}

// LeftSeconds is Left for the wire: a second that is not whole cannot be asked for.
func (e *ExceededError) LeftSeconds() int {
	return int(e.Left / time.Second)
}

// Again is Wait as a person may be told it: from a second to a Span, wherever the clock has jumped.
func (e *ExceededError) Again() time.Duration { return min(max(e.Wait, time.Second), Span) }

// Reason says what is in the way.
func (e *ExceededError) Reason() string {
	text := fmt.Sprintf("%g s asked for, %d s left", e.Requested.Seconds(), e.LeftSeconds())
	switch {
	case e.Via != "" && e.OnlyHolds:
		return text + " of what Spaces may spend through others: calls under way hold the rest"
	case e.Via != "":
		return text + " of what Spaces may spend through others: it is half of what would be left without them"
	case e.OnlyHolds:
		return text + ": calls under way hold the rest"
	}
	return text + ": the rest is used up until the reset"
}

// WaitSeconds is Wait for the wire, between 1 and 86399: the spaces package reads 0 as "runs limit", a negative
// number as "illegal duration", and prints 86400 as "1 day, 0:00:00".
func (e *ExceededError) WaitSeconds() int {
	return int(min(max(ceil(e.Wait, time.Second)/time.Second, 1), 86399))
}

// IllegalDurationError refuses a hold that this tier could never grant.
type IllegalDurationError struct {
	Requested, Longest time.Duration
}

// Reason says what is in the way.
func (e *IllegalDurationError) Reason() string {
	if e.Longest == 0 {
		return "no call may take a day: the duration was probably a negative number"
	}
	return fmt.Sprintf("%g s are more than one call may ask for (%g s)", e.Requested.Seconds(), e.Longest.Seconds())
}

func (e *IllegalDurationError) Error() string {
	return fmt.Sprintf("illegal duration: %v requested, %v is the longest allowed", e.Requested, e.Longest)
}

// requested is the time to set aside, to the millisecond that SQL keeps.
func (r HoldRequest) requested() (time.Duration, error) {
	if r.Declared <= 0 || r.Factor < 1 || r.Lease == "" || r.Identity == "" {
		return 0, fmt.Errorf("hold for lease %q of %q: declared %v x %d", r.Lease, r.Identity, r.Declared, r.Factor)
	}
	requested := times(ceil(r.Declared, time.Millisecond), r.Factor)
	if longest := r.Tier.LongestCall(); !r.Tier.Unlimited && requested > longest {
		return 0, &IllegalDurationError{Requested: requested, Longest: longest}
	}
	return requested, nil
}

// left is what may still be held in w; it may be negative.
func (r HoldRequest) left(w window) time.Duration {
	if r.Via != "" {
		return w.leftVia(r.Tier)
	}
	return w.left(r.Tier)
}

// fits says whether the quota suffices.
func (r HoldRequest) fits(requested time.Duration, w window) bool {
	return r.Tier.Unlimited || requested <= r.left(w)
}

// exceeded says why the quota does not suffice, and until when. The holds of pending are those that count in w.
//
//  1. Charges leave too little: only the reset helps.
//  2. Only holds are in the way: the earliest deadlines free enough, or the reset comes first.
func (r HoldRequest) exceeded(requested time.Duration, w window, pending []Pending) *ExceededError {
	left := r.left(w)
	e := &ExceededError{Requested: requested, Left: max(0, left), Wait: w.untilReset(r.Now), Via: r.Via}
	charged := w
	charged.held, charged.viaHeld = 0, 0
	if requested > r.left(charged) { // 1
		return e
	}
	e.OnlyHolds = true // 2
	if freed, ok := r.freedAt(requested-left, pending); ok {
		e.Wait = max(0, min(e.Wait, freed.Sub(r.Now)))
	}
	return e
}

// freedAt is when the earliest deadlines have freed what is missing.
func (r HoldRequest) freedAt(missing time.Duration, pending []Pending) (time.Time, bool) {
	slices.SortFunc(pending, func(a, b Pending) int { return a.Until.Compare(b.Until) })
	for _, p := range pending {
		if missing -= r.freedBy(p); missing <= 0 {
			return p.Until, true
		}
	}
	return time.Time{}, false
}

// freedBy is by how much left grows when p is over, if nothing of it is charged.
func (r HoldRequest) freedBy(p Pending) time.Duration {
	if r.Via != "" && !p.via { // the cap is half of what is left
		return p.Held / 2
	}
	return p.Held
}

// times never wraps round: a duration comes from the Space, and a negative hold would pass for a small one.
func times(d time.Duration, factor int) time.Duration {
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
