package migrations

import (
	"path/filepath"
	"testing"
)

// TestMachinesMigration: the rows of an older host belong to the host's own machine.
func TestMachinesMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	steps := ownSteps(t)
	for name := range steps {
		if name >= "0026" {
			delete(steps, name)
		}
	}
	older, err := open(t.Context(), path, steps)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, older, `INSERT INTO leases (id, space, identity, declared_ms, held_ms, state, admitted_at) VALUES ('a', 'demo', 'local', 1, 1, 'active', 1)`)
	exec(t, older, `INSERT INTO runners (instance, space, pid, start, started_at) VALUES ('run-1', 'demo', 1, 1, 1)`)
	older.Close()
	db := mustOpen(t, path)
	for _, table := range []string{"leases", "runners"} {
		if n := count(t, db, `SELECT count(*) FROM `+table+` WHERE machine = ''`); n != 1 {
			t.Errorf("%s: %d rows of the own machine, want 1", table, n)
		}
	}
}
