package migrations

import (
	"path/filepath"
	"testing"
)

// Migration 0011 creates the ledger again. It keeps every entry, and the triggers of the new table hold the same promises.
func TestRunsMigrationKeepsTheLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	steps := ownSteps(t)
	for name := range steps {
		if name >= "0011" {
			delete(steps, name)
		}
	}
	older, err := open(t.Context(), path, steps)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, older, `INSERT INTO windows (id, identity, opened_at, ends_at) VALUES (1, 'local', 1, 2)`)
	exec(t, older, `INSERT INTO ledger (id, at, identity, window_id, lease_id, kind, held_ms, via, factor) VALUES (7, 1, 'local', 1, 'old', 'hold', 60000, 'a', 2)`)
	exec(t, older, `INSERT INTO ledger (id, at, identity, window_id, lease_id, kind, held_ms, charged_ms, returned_ms, via, factor, reason)
		VALUES (8, 2, 'local', 1, 'old', 'settle', 60000, 20000, 40000, 'a', 2, 'released')`)
	exec(t, older, `INSERT INTO ledger (id, at, identity, window_id, lease_id, kind, held_ms) VALUES (9, 3, 'local', 1, 'open', 'hold', 5000)`)
	exec(t, older, `INSERT INTO ledger (id, at, identity, window_id, kind, returned_ms, by_whom) VALUES (10, 3, 'local', 1, 'grant', 9000, 'root')`)
	older.Close()

	db := mustOpen(t, path)
	for what, query := range map[string]string{
		"entries":  `SELECT 3 + count(*) FROM ledger WHERE id = 8 AND via = 'a' AND factor = 2 AND charged_ms = 20000 AND reason = 'released' AND runs = 0`,
		"sums":     `SELECT 3 + count(*) FROM windows WHERE held_ms = 5000 AND charged_ms = 20000 AND granted_ms = 9000 AND via_charged_ms = 20000`,
		"all rows": `SELECT count(*) FROM ledger`,
	} {
		if n := count(t, db, query); n != 4 {
			t.Errorf("%s: got %d, want 4", what, n)
		}
	}
	exec(t, db, `INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, charged_ms, returned_ms, runs) VALUES (4, 'local', 1, 'open', 'settle', 5000, 1000, 4000, 1)`)
	exec(t, db, `INSERT INTO runs (lease_id, identity, at) VALUES ('open', 'local', 3)`)
	for _, wrong := range []string{
		`UPDATE ledger SET held_ms = 1`, `DELETE FROM ledger`,
		`INSERT INTO ledger (at, identity, window_id, kind, returned_ms) VALUES (4, 'local', 1, 'gift', 1)`,
		`INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms) VALUES (4, 'local', 1, 'open', 'hold', 1)`,
		`INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, credit_held_ms) VALUES (4, 'local', 1, 'x', 'hold', 1, 2)`,
		`INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms) VALUES (4, 'local', 2, 'y', 'hold', 1)`,
	} {
		if _, err := db.ExecContext(t.Context(), wrong); err == nil {
			t.Errorf("accepted: %s", wrong)
		}
	}
	if err := Check(t.Context(), path); err != nil {
		t.Error(err)
	}
}
