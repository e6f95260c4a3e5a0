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

// retention deletes old leases, ledger entries, tokens, sign-ins and audit entries from the database.
type retention struct {
	keep         func() time.Duration // 0: keep history without a limit
	now          func() time.Time     // wall clock
	purgeHistory func(ctx context.Context, before time.Time) (lease.Forgotten, error)
	purgeStages  func(ctx context.Context, before time.Time) (int64, error) // of Spaces; nil: none
	purgeTokens  func(ctx context.Context, before time.Time) (int64, error) // revoked tokens; also expired sign-ins, even with the zero time
	purgeAudit   func(ctx context.Context, before time.Time) (int64, error) // entries of the audit log
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
		if err == nil && r.purgeStages != nil {
			_, err = r.purgeStages(ctx, before)
		}
	}
	if err == nil {
		var tokens int64
		if tokens, err = r.purgeTokens(ctx, before); tokens > 0 {
			r.log.Info("purged revoked tokens", zap.Int64("tokens", tokens), zap.Time("before", before))
		}
	}
	if err == nil {
		var entries int64
		if entries, err = r.purgeAudit(ctx, before); entries > 0 {
			r.log.Info("purged audit entries", zap.Int64("entries", entries), zap.Time("before", before))
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

// forgetHistory deletes what has ended before a time, and the counts of refusals until then.
func (h *Host) forgetHistory(ctx context.Context, before time.Time) (lease.Forgotten, error) {
	gone, err := h.broker.Forget(ctx, before)
	if err == nil {
		err = h.ledger.ForgetRefusals(ctx, before)
	}
	return gone, err
}

// refusalsUnsaved logs that refusals were not counted yet.
func (h *Host) refusalsUnsaved(err error) {
	h.log.Warn("refusals are not counted: the next refusal tries again", zap.Error(err))
}
