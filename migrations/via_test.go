package migrations

import (
	"path/filepath"
	"testing"
	"testing/fstest"
)

// A hold from before migration 0004 is settled after it.
func TestViaMigrationSettlesOlderHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	steps := fstest.MapFS{}
	for _, name := range []string{"0001_leases_and_ledger.sql", "0002_people.sql"} {
		steps[name] = ownSteps(t)[name]
	}
	older, err := open(t.Context(), path, steps)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, older, "INSERT INTO windows (id, identity) VALUES (1, 'local')")
	exec(t, older, "INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms) VALUES (1, 'local', 1, 'old', 'hold', 60000)")
	older.Close()
	db := mustOpen(t, path)
	exec(t, db, `INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, charged_ms, returned_ms)
		VALUES (2, 'local', 1, 'old', 'settle', 60000, 20000, 40000)`)
	exec(t, db, `INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, via) VALUES (3, 'local', 1, 'new', 'hold', 5000, 'a')`)
	if n := count(t, db, `SELECT count(*) FROM windows
		WHERE held_ms = 5000 AND charged_ms = 20000 AND via_held_ms = 5000 AND via_charged_ms = 0`); n != 1 {
		t.Error("the sums of the window differ from its ledger entries")
	}
}
