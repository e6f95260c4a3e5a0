package migrations

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/mattn/go-sqlite3"
)

// A database from before migration 0002 keeps its ledger.
func TestPeopleMigrationKeepsLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	const first = "0001_leases_and_ledger.sql"
	older, err := open(t.Context(), path, fstest.MapFS{first: ownSteps(t)[first]})
	if err != nil {
		t.Fatal(err)
	}
	exec(t, older, "INSERT INTO windows (identity) VALUES ('local')")
	older.Close()
	db := mustOpen(t, path)
	if got := count(t, db, "SELECT count(*) FROM windows") + count(t, db, "SELECT count(*) FROM people"); got != 1 {
		t.Errorf("rows after the upgrade: got %d, want the one from before", got)
	}
}

// The tables enforce the rules of internal/people, regardless of the writer.
func TestPeopleConstraints(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "spacehost.db"))
	exec(t, db, "INSERT INTO people (name, tier, created_at, created_by) VALUES ('a.da_9-', 'free', 1, 'operator')")
	exec(t, db, "INSERT INTO tokens (id, person, hash, created_at) VALUES ('one', 'a.da_9-', zeroblob(32), 1)")
	for _, query := range []string{
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('Ada', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('a b', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('-a', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('..', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('é', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('a' || char(10), 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('" + sixtyFive + "', 'free', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('ben', '', 1, '')",
		"INSERT INTO people (name, tier, created_at, created_by) VALUES ('a.da_9-', 'pro', 1, '')",
		"INSERT INTO tokens (id, person, hash, created_at) VALUES ('two', 'nobody', randomblob(32), 1)",
		"INSERT INTO tokens (id, person, hash, created_at) VALUES ('two', 'a.da_9-', randomblob(31), 1)",
		"INSERT INTO tokens (id, person, hash, created_at) VALUES ('two', 'a.da_9-', zeroblob(32), 1)",
		"INSERT INTO tokens (id, person, hash, created_at) VALUES ('one', 'a.da_9-', randomblob(32), 1)",
		"INSERT INTO tokens (id, person, hash, created_at) VALUES ('two', 'a.da_9-', 'sph_text', 1)",
		"INSERT INTO people (name, tier, created_at, created_by, source) VALUES ('ben', 'free', 1, '', 'somebody')",
		"DELETE FROM people",
	} {
		var lite sqlite3.Error
		_, err := db.ExecContext(t.Context(), query)
		if !errors.As(err, &lite) || lite.Code != sqlite3.ErrConstraint {
			t.Errorf("%s: got %v, want a constraint", query, err)
		}
	}
}

const sixtyFive = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
