package quota

import "time"

// Span is how long a Window lasts once a Lease has become active in it.
const Span = 24 * time.Hour

// window is the span in which one identity's seconds are counted. The zero window has no row yet.
type window struct {
	id      int64
	opened  time.Time // zero: not opened yet
	ends    time.Time // opened + Span
	held    time.Duration
	charged time.Duration
	granted time.Duration

	viaHeld, viaCharged time.Duration // of held and charged: what Spaces have spent through others
}

// at is the window that counts now, given the identity's latest. One that was never opened counts however long ago
// it was made. Only the latest is ever asked, so a clock that steps back does not bring an older one back to life.
func (w window) at(now time.Time) window {
	if !w.opened.IsZero() && !now.Before(w.ends) {
		return window{}
	}
	return w
}

// unspent is what charges have left of the quota, unless holds are in the way.
func (w window) unspent(t Tier) time.Duration {
	return t.Quota + w.granted - w.charged
}

// left may be negative: a tier can shrink within a window.
func (w window) left(t Tier) time.Duration {
	return w.unspent(t) - w.held
}

// remaining is the part of the quota that is left, between 0 and 1.
func (w window) remaining(t Tier) float64 {
	if t.Unlimited {
		return 1
	}
	all := t.Quota + w.granted
	if all <= 0 {
		return 0
	}
	return min(1, max(0, float64(w.left(t))/float64(all)))
}

// leftVia is what a Space may still spend through others: all of them together at most half of what would be left if
// they had spent nothing. With via = viaHeld + viaCharged that is (left + via) / 2 - via.
func (w window) leftVia(t Tier) time.Duration {
	return (w.left(t) - w.viaHeld - w.viaCharged) / 2
}

// untilReset is a whole Span where nobody can know yet when the window will open.
func (w window) untilReset(now time.Time) time.Duration {
	if w.opened.IsZero() {
		return Span
	}
	return w.ends.Sub(now)
}
