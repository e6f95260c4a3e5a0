package migrations

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackupAndRestore: a backup of a database in use is complete and can be restored.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "spacehost.db"), filepath.Join(dir, "what? 50%.db")
	db := mustOpen(t, path)
	exec(t, db, "INSERT INTO windows (identity) VALUES ('ada')")
	if err := Backup(t.Context(), path, backup); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "INSERT INTO windows (identity) VALUES ('ben')")
	for _, whole := range []string{path, backup} {
		if err := Check(t.Context(), whole); err != nil {
			t.Errorf("check: %v", err)
		}
	}
	if err := Backup(t.Context(), path, backup); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("a second backup to the same file: got %v, want it refused", err)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v; want mode 0600", info.Mode(), err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := Restore(t.Context(), backup, path)
	if err != nil {
		t.Fatal(err)
	}
	if got := count(t, mustOpen(t, path), "SELECT count(*) FROM windows"); got != 1 {
		t.Errorf("%d windows are restored, want those of the backup", got)
	}
	if got := count(t, mustOpen(t, kept), "SELECT count(*) FROM windows"); got != 2 {
		t.Errorf("%d windows are in the kept database, want those from before the restore", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.restored")); left != nil {
		t.Errorf("leftover files: %v", left)
	}
}

// TestCheckFindsDamage: Check reports a manually changed sum and a file that is not a database.
func TestCheckFindsDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spacehost.db")
	db := mustOpen(t, path)
	exec(t, db, "INSERT INTO windows (id, identity) VALUES (1, 'local')")
	exec(t, db, "INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms) VALUES (1, 'local', 1, 'a', 'hold', 5)")
	if err := Check(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "UPDATE windows SET held_ms = 0")
	var corrupt *CorruptError
	if err := Check(t.Context(), path); !errors.As(err, &corrupt) || !strings.Contains(corrupt.Detail, "window 1 of local") {
		t.Errorf("got %v, want the window named", err)
	}
	exec(t, db, "UPDATE windows SET held_ms = 5")
	exec(t, db, "INSERT INTO windows (id, identity) VALUES (2, 'ben')")
	exec(t, db, "INSERT INTO ledger (at, identity, window_id, lease_id, kind, held_ms, returned_ms) VALUES (1, 'ben', 2, 'b', 'settle', 5, 5)")
	if err := Check(t.Context(), path); !errors.As(err, &corrupt) || !strings.Contains(corrupt.Detail, "lease b") {
		t.Errorf("a settlement without a hold: got %v, want the lease named", err)
	}
	noise := filepath.Join(dir, "noise.db")
	if err := os.WriteFile(noise, bytes.Repeat([]byte("x"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	if _, err := Restore(t.Context(), noise, path); !errors.As(err, &corrupt) || corrupt.Path != noise {
		t.Errorf("restore of noise: got %v, want it refused by name", err)
	}
	if !bytes.Equal(read(t, path), before) {
		t.Error("a refused restore has changed the database")
	}
	if err := Backup(t.Context(), filepath.Join(dir, "nowhere.db"), filepath.Join(dir, "b.db")); err == nil || !strings.Contains(err.Error(), "there is no database") {
		t.Errorf("backup of nothing: got %v", err)
	}
}

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	if err := checkLocal(filepath.Join(t.TempDir(), "spacehost.db")); err != nil {
		t.Errorf("a local disk: %v", err)
	}
	err := error(&RemoteError{Path: "/nfs/spacehost.db", FileSystem: remoteFileSystems[0x6969]})
	if text := wrapError("/nfs/spacehost.db", err).Error(); !strings.Contains(text, "NFS") || !strings.Contains(text, "--state") {
		t.Errorf("%q does not name the file system and the next step", text)
	}
}
