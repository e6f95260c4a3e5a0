package lease

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/migrations"
	"spacehost/quota"
)

// TestSums: a hundred thousand Leases of a week, with what each adds to the sums.
func TestSums(t *testing.T) {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	from := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const number, each = 100_000, 6_000 // one ends each 6 s
	const leases = `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?3 - 1)
		INSERT INTO leases (id, space, identity, tier, function, size, declared_ms, held_ms, state, worker_pid, admitted_at, active_at, deadline_at, ended_at, charged_ms)
		SELECT 'lease-' || i, 'space-' || (i % 10), 'user:' || (i % 250), 'free', 'f' || (i % 20), iif(i % 4 = 0, 'xlarge', 'large'), 60000, iif(i % 4 = 0, 120000, 60000),
			CASE i % 100 WHEN 7 THEN 'expired' WHEN 8 THEN 'withdrawn' ELSE 'released' END, iif(i % 100 = 8, NULL, 4711), ?1 + i * ?2 - 9000,
			iif(i % 100 = 8, NULL, ?1 + i * ?2 - 3001), iif(i % 100 = 8, NULL, ?1 + i * ?2 + 57000), ?1 + i * ?2,
			CASE WHEN i % 100 IN (8, 9) THEN 0 WHEN i % 4 = 0 THEN 6003 ELSE 3001 END FROM n`
	if _, err := db.Exec(leases, from.UnixMilli(), each, number); err != nil {
		t.Fatal(err)
	}
	s := &store{db: db, reads: db}
	week := quota.Breakdown{From: from, To: from.Add(7 * 24 * time.Hour), Part: time.Hour}
	for by, keys := range map[quota.Dimension]int{quota.ByPerson: 250, quota.BySpace: 10, quota.ByFunction: 20, quota.ByTier: 1} {
		week.By = by
		began := time.Now()
		sums, err := s.sums(t.Context(), week)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("by %s: %d sums of %d leases in %v", by, len(sums), number, took)
		if took > 10*time.Second { // a second on an idle machine
			t.Errorf("by %s: the sums took %v", by, took)
		}
		var all Sum
		found := map[[2]string]bool{}
		for _, sum := range sums {
			found[[2]string{sum.Space, sum.Key}] = true
			all.Calls, all.Kills = all.Calls+sum.Calls, all.Kills+sum.Kills
			all.Used, all.Declared, all.Held, all.Charged = all.Used+sum.Used, all.Declared+sum.Declared, all.Held+sum.Held, all.Charged+sum.Charged
			if sum.Part < 0 || sum.Part >= week.Parts() {
				t.Fatalf("by %s: part %d of %d", by, sum.Part, week.Parts())
			}
		}
		const ms = time.Millisecond
		want := Sum{
			Calls: number, Kills: number / 100, Declared: number * 60_000 * ms, Held: (number/4*120_000 + number*3/4*60_000) * ms,
			Charged: (number/4-number/100)*6003*ms + number*3/4*3001*ms - number/100*3001*ms, // i % 100 == 8 is xlarge, 9 is large
			Used:    (number/4-number/100)*6003*ms/2 + (number*3/4)*3001*ms,                  // 9 was used, and the host ended it: no charge
		}
		if all != want || len(found) != keys {
			t.Errorf("by %s: %+v with %d keys\nwant %+v with %d", by, all, len(found), want, keys)
		}
	}
	var plan strings.Builder
	rows, err := db.Query(`EXPLAIN QUERY PLAN SELECT count(*), sum(charged_ms) FROM leases WHERE ended_at >= 1 AND ended_at < 2 GROUP BY identity`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(detail + "\n")
	}
	if !strings.Contains(plan.String(), "leases_ended") {
		t.Errorf("the time is not found by an index:\n%s", plan.String())
	}
	hour := quota.Breakdown{From: from, To: from.Add(time.Hour), Part: time.Hour, By: quota.ByTier}
	sums, err := s.sums(t.Context(), hour)
	if err != nil || len(sums) != 1 || sums[0].Calls != 600 { // that which ends at the end is excluded
		t.Errorf("the first hour: %+v, %v", sums, err)
	}
}
