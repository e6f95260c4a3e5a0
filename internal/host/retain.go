package host

import (
	"context"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lease"
)

const (
	firstRetain = time.Minute // after a start: some hosts run for less than an hour
	retainEvery = time.Hour
)

// retention takes out of the database what was over long ago.
type retention struct {
	keep    time.Duration    // 0: for ever
	now     func() time.Time // wall clock
	history func(ctx context.Context, before time.Time) (lease.Forgotten, error)
	tokens  func(ctx context.Context, before time.Time) (int64, error) // and sign-ins; of the zero time only these
	log     *zap.Logger
}

// run does so now and then until ctx ends. A round after which the clock has leapt ahead is left out: who has set it
// wrong has until the next one to see it, before what seems old is gone.
func (r retention) run(ctx context.Context) {
	r.log.Info("history is kept", zap.Stringer("for", keptFor(r.keep)))
	last := r.now().Round(0)
	for wait := firstRetain; ; wait = retainEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := r.now().Round(0)
		if now.Sub(last) < 2*retainEvery {
			r.once(ctx, now)
		}
		last = r.now().Round(0)
	}
}

func (r retention) once(ctx context.Context, now time.Time) {
	var before time.Time
	var gone lease.Forgotten
	var err error
	if r.keep > 0 {
		before = now.Add(-r.keep)
		gone, err = r.history(ctx, before)
	}
	if err == nil {
		var tokens int64
		if tokens, err = r.tokens(ctx, before); tokens > 0 {
			r.log.Info("forgot revoked tokens", zap.Int64("tokens", tokens), zap.Time("before", before))
		}
	}
	if gone != (lease.Forgotten{}) {
		r.log.Info("forgot what was over", zap.Int("leases", gone.Leases), zap.Int("windows", gone.Windows), zap.Time("before", before))
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("could not forget what is over: the next round goes on", zap.Error(err))
	}
}

// keptFor is a keep in words.
type keptFor time.Duration

func (k keptFor) String() string {
	if k == 0 {
		return "ever"
	}
	return time.Duration(k).String()
}
