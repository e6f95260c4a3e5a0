package quota

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// CreditsPendingError refuses a hold because open calls hold the credits that it needs.
type CreditsPendingError struct {
	Requested, Left time.Duration // Left has what is left of the quota and of the credits
	Wait            time.Duration // until the holds of credits have ended
}

func (e *CreditsPendingError) Error() string {
	return fmt.Sprintf("pending credits exceeded: %v requested, %v left, try again in %v", e.Requested, e.Left, e.Wait)
}

// Again returns Wait for display, from a second to a Span.
func (e *CreditsPendingError) Again() time.Duration { return min(max(e.Wait, time.Second), Span) }

// Reason explains the refusal to a user.
func (e *CreditsPendingError) Reason() string {
	return fmt.Sprintf("%g s requested, %d s left: running calls hold the rest of the credits", e.Requested.Seconds(), wholeSeconds(e.Left))
}

// LeftSeconds returns Left for the wire.
func (e *CreditsPendingError) LeftSeconds() int { return wholeSeconds(e.Left) }

// WaitSeconds returns Wait for the wire, see ExceededError.WaitSeconds.
func (e *CreditsPendingError) WaitSeconds() int { return waitSeconds(e.Wait) }

// credits are the prepaid seconds of an identity. They have no Window.
type credits struct {
	left, held time.Duration
}

// creditsOf returns the credits that r may use. Calls through other Spaces use none: their limit is half of the quota.
func (r HoldRequest) creditsOf(ctx context.Context, q querier) (credits, error) {
	if r.Via != "" {
		return credits{}, nil
	}
	return readCredits(ctx, q, r.Identity)
}

func readCredits(ctx context.Context, q querier, identity string) (c credits, err error) {
	err = q.QueryRowContext(ctx, `SELECT carried_ms + bought_ms - used_ms - held_ms, held_ms FROM credits WHERE identity = ?`, identity).
		Scan((*millis)(&c.left), (*millis)(&c.held))
	if errors.Is(err, sql.ErrNoRows) {
		return credits{}, nil
	}
	if err != nil {
		return credits{}, fmt.Errorf("read credits of %s: %w", identity, err)
	}
	return c, nil
}

// pendingCredits refuses a request that only holds of credits prevent. It waits for the last of them.
func (r HoldRequest) pendingCredits(requested time.Duration, w window, c credits, pending []Pending) *CreditsPendingError {
	e := &CreditsPendingError{Requested: requested, Left: max(0, r.left(w)) + c.left, Wait: w.untilReset(r.Now)}
	slices.SortFunc(pending, func(a, b Pending) int { return a.Until.Compare(b.Until) })
	missing := requested - e.Left
	for _, p := range pending {
		if missing -= p.credit; missing <= 0 {
			e.Wait = max(0, p.Until.Sub(r.Now))
			break
		}
	}
	return e
}
