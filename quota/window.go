package quota

import "time"

// Span is the length of a Window, counted from the first active Lease.
const Span = 24 * time.Hour

// window is the span in which one identity's seconds are counted. The zero window has no row yet.
type window struct {
	id      int64
	opened  time.Time // zero: not opened yet
	ends    time.Time // opened + Span
	held    time.Duration
	charged time.Duration
	granted time.Duration
	credit  time.Duration // charged to the credits; held and charged are without it

	viaHeld, viaCharged time.Duration // the parts of held and charged that Spaces have spent through other Spaces
}

// at returns the current window, given the identity's latest one. An unopened window is current, regardless of its age.
// Only the latest window is considered, so a clock that steps back does not revive an older one.
func (w window) at(now time.Time) window {
	if !w.opened.IsZero() && !now.Before(w.ends) {
		return window{}
	}
	return w
}

// unspent returns the quota minus charges, without regard to holds.
func (w window) unspent(t Tier) time.Duration {
	return t.Quota + w.granted - w.charged
}

// left returns the quota minus charges and holds. It may be negative, because a tier can shrink within a window.
func (w window) left(t Tier) time.Duration {
	return w.unspent(t) - w.held
}

// remaining returns the fraction of the quota that is left, from 0 to 1.
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

// leftVia returns what a Space may still spend through other Spaces. All Spaces together may spend at most half of what
// would be left if they had spent nothing. With via = viaHeld + viaCharged that is (left + via) / 2 - via.
func (w window) leftVia(t Tier) time.Duration {
	return (w.left(t) - w.viaHeld - w.viaCharged) / 2
}

// untilReset returns the time until the window ends. For an unopened window, whose end is unknown, it is a whole Span.
func (w window) untilReset(now time.Time) time.Duration {
	if w.opened.IsZero() {
		return Span
	}
	return w.ends.Sub(now)
}
