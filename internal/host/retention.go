package host

import (
	"context"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lease"
)

const (
	firstPurge    = time.Minute // after a start: some hosts run for less than an hour
	purgeInterval = time.Hour
)

// retention deletes old leases, ledger entries, tokens and sign-ins from the database.
type retention struct {
	keep         func() time.Duration // 0: keep history without a limit
	now          func() time.Time     // wall clock
	purgeHistory func(ctx context.Context, before time.Time) (lease.Forgotten, error)
	purgeTokens  func(ctx context.Context, before time.Time) (int64, error) // revoked tokens; also expired sign-ins, even with the zero time
	log          *zap.Logger
}

// run purges every hour until ctx ends. It skips a round before which the clock jumped ahead: an operator who set the clock
// wrong has an hour to notice, before history that only seems old is deleted.
func (r retention) run(ctx context.Context) {
	r.log.Info("retention period", zap.Stringer("for", retentionPeriod(r.keep())))
	last := r.now().Round(0)
	for wait := firstPurge; ; wait = purgeInterval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := r.now().Round(0)
		if now.Sub(last) < 2*purgeInterval {
			r.purge(ctx, now)
		}
		last = r.now().Round(0)
	}
}

func (r retention) purge(ctx context.Context, now time.Time) {
	var before time.Time
	var gone lease.Forgotten
	var err error
	if keep := r.keep(); keep > 0 {
		before = now.Add(-keep)
		gone, err = r.purgeHistory(ctx, before)
	}
	if err == nil {
		var tokens int64
		if tokens, err = r.purgeTokens(ctx, before); tokens > 0 {
			r.log.Info("purged revoked tokens", zap.Int64("tokens", tokens), zap.Time("before", before))
		}
	}
	if gone != (lease.Forgotten{}) {
		r.log.Info("purged history", zap.Int("leases", gone.Leases), zap.Int("windows", gone.Windows), zap.Time("before", before))
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("purge failed: the next round continues", zap.Error(err))
	}
}

// retentionPeriod formats retention.keep for the log.
type retentionPeriod time.Duration

func (p retentionPeriod) String() string {
	if p == 0 {
		return "ever"
	}
	return time.Duration(p).String()
}
