package lease

import (
	"context"
	"fmt"
	"time"

	"spacehost/internal/sqlrows"
	"spacehost/quota"
)

// Sum is the usage of one key in one part of a quota.Breakdown.
type Sum struct {
	Key, Space string // Space only by function
	Part       int
	Calls      int           // Leases that have ended, also those without a GPU
	Kills      int           // workers that the host ended, as Change.Killed
	Used       time.Duration // from the start of the clock to the end or the deadline
	Declared   time.Duration
	Held       time.Duration // Declared, times the factor of the size
	Charged    time.Duration
}

// Sums returns the sums of the Leases that have ended in the time of a Breakdown, in no order. Charged equals the sum of the
// ledger's settlements, and Used that of their use. A Lease that End or EndLease ended, or whose Device failed, has Used without
// Charged; an expired one is charged Held. It reads the database.
func (b *Broker) Sums(ctx context.Context, of quota.Breakdown) ([]Sum, error) {
	return b.store.sums(ctx, of)
}

// usedMicros is the use of a Lease in microseconds: a charge divided by the factor ?4 need not be whole milliseconds.
const usedMicros = `CASE WHEN charged_ms > 0 THEN charged_ms * 1000 / CASE size WHEN 'xlarge' THEN ?4 ELSE 1 END
	ELSE ` + quota.UnpaidMillis + ` * 1000 END`

func (s *store) sums(ctx context.Context, of quota.Breakdown) ([]Sum, error) {
	key, space := of.By.Columns()
	rows, err := s.reads.QueryContext(ctx, `SELECT `+key+`, `+space+`, (ended_at - ?1) / ?2 AS part, count(*),
		sum(worker_pid IS NOT NULL AND state IN ('expired', 'revoked', 'unclaimed')), sum(`+usedMicros+`), sum(declared_ms), sum(held_ms), sum(charged_ms)
		FROM leases WHERE ended_at >= ?1 AND ended_at < ?3 GROUP BY 1, 2, 3`,
		of.From.UnixMilli(), of.Part.Milliseconds(), of.To.UnixMilli(), quota.Factor("xlarge"))
	return sqlrows.Collect(rows, err, "sum usage", func(row sqlrows.Scanner) (sum Sum, err error) {
		var used, declared, held, charged int64
		err = row.Scan(&sum.Key, &sum.Space, &sum.Part, &sum.Calls, &sum.Kills, &used, &declared, &held, &charged)
		sum.Used, sum.Declared = time.Duration(used)*time.Microsecond, milliseconds(declared)
		sum.Held, sum.Charged = milliseconds(held), milliseconds(charged)
		if err != nil {
			err = fmt.Errorf("by %s: %w", of.By, err)
		}
		return sum, err
	})
}
