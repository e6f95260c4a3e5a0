package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
)

// Check reads the whole database at path with all indexes, and verifies the sums of the ledger. A host may use the
// database at the same time. Errors: *CorruptError, *NewerError, or the error that prevented the check.
func Check(ctx context.Context, path string) error {
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	defer db.Close()
	return wrapError(path, checkAll(ctx, db, path))
}

func checkAll(ctx context.Context, db *sql.DB, path string) error {
	for _, query := range []string{"PRAGMA integrity_check(3)", "SELECT coalesce((SELECT 'rows of ' || \"table\" || ' refer to missing rows' FROM pragma_foreign_key_check LIMIT 1), 'ok')"} {
		if err := checkOK(ctx, db, path, query); err != nil {
			return err
		}
	}
	if err := checkVersion(ctx, db, path); err != nil {
		return err
	}
	for _, query := range []string{wrongSumsQuery, wrongPairsQuery, wrongCreditsQuery, wrongRunsQuery} {
		if err := checkOK(ctx, db, path, query); err != nil {
			return err
		}
	}
	return nil
}

// wrongSumsQuery returns a window whose sums differ from its entries. The entries are authoritative; the sums exist for
// speed.
const wrongSumsQuery = `SELECT coalesce((SELECT 'the sums of window ' || w.id || ' of ' || w.identity || ' differ from its ledger entries'
	FROM windows w LEFT JOIN (SELECT window_id,
		sum(CASE kind WHEN 'hold' THEN held_ms - credit_held_ms WHEN 'settle' THEN credit_held_ms - held_ms ELSE 0 END) AS held,
		sum(CASE kind WHEN 'settle' THEN charged_ms - credit_charged_ms WHEN 'reset' THEN -returned_ms ELSE 0 END) AS charged,
		sum(CASE kind WHEN 'grant' THEN returned_ms ELSE 0 END) AS granted, sum(credit_charged_ms) AS credit
		FROM ledger GROUP BY window_id) l ON l.window_id = w.id
	WHERE w.held_ms <> coalesce(l.held, 0) OR w.charged_ms <> coalesce(l.charged, 0) OR w.granted_ms <> coalesce(l.granted, 0)
		OR w.credit_charged_ms <> coalesce(l.credit, 0) LIMIT 1), 'ok')`

// wrongCreditsQuery returns an identity whose credits differ from its entries, or are overdrawn.
const wrongCreditsQuery = `SELECT coalesce((SELECT 'the credits of ' || c.identity || ' differ from its ledger entries'
	FROM credits c LEFT JOIN (SELECT identity,
		sum(CASE kind WHEN 'credit' THEN returned_ms ELSE 0 END) AS bought, sum(credit_charged_ms) AS used,
		sum(CASE kind WHEN 'hold' THEN credit_held_ms WHEN 'settle' THEN -credit_held_ms ELSE 0 END) AS held
		FROM ledger WHERE kind = 'credit' OR credit_held_ms > 0 GROUP BY identity) l ON l.identity = c.identity
	WHERE c.bought_ms <> coalesce(l.bought, 0) OR c.used_ms <> coalesce(l.used, 0) OR c.held_ms <> coalesce(l.held, 0)
		OR c.carried_ms + c.bought_ms - c.used_ms - c.held_ms < 0 LIMIT 1), 'ok')`

// wrongRunsQuery returns a run without a hold, a run that is still reserved after its settlement, or a settlement whose count
// of runs differs from the run of its lease.
const wrongRunsQuery = `SELECT coalesce((SELECT 'the run of lease ' || r.lease_id || ' has no hold' FROM runs r
	WHERE NOT EXISTS (SELECT 1 FROM ledger h WHERE h.lease_id = r.lease_id AND h.kind = 'hold' AND h.identity = r.identity) LIMIT 1),
	(SELECT 'the run of lease ' || s.lease_id || ' differs from its settlement' FROM ledger s LEFT JOIN runs r ON r.lease_id = s.lease_id
	WHERE s.kind = 'settle' AND (s.runs <> (r.lease_id IS NOT NULL) OR r.lease_id IS NOT NULL AND r.at IS NULL) LIMIT 1), 'ok')`

// wrongPairsQuery returns a lease whose settlement does not match its hold, or which has ended without a settlement.
const wrongPairsQuery = `SELECT coalesce((SELECT 'the settlement of lease ' || s.lease_id || ' matches no hold in its window'
	FROM ledger s LEFT JOIN ledger h ON h.lease_id = s.lease_id AND h.kind = 'hold'
	WHERE s.kind = 'settle' AND (h.id IS NULL OR h.window_id <> s.window_id OR h.held_ms <> s.held_ms) LIMIT 1),
	(SELECT 'lease ' || l.id || ' has ended without a settlement of its hold'
	FROM leases l JOIN ledger h ON h.lease_id = l.id AND h.kind = 'hold' LEFT JOIN ledger s ON s.lease_id = l.id AND s.kind = 'settle'
	WHERE l.ended_at IS NOT NULL AND s.id IS NULL LIMIT 1), 'ok')`

// Backup writes a consistent copy of the database at path to a file that must not exist. A host may use the database at
// the same time. An interrupted backup leaves no file at to.
func Backup(ctx context.Context, path, to string) error {
	db, err := openReadOnly(path)
	if err != nil {
		return err
	}
	defer db.Close()
	err = copyTo(ctx, db, to)
	if err == nil || errors.As(err, new(*TargetError)) { // an error of the copy, not of the database
		return err
	}
	return fmt.Errorf("back up %s: %w", path, wrapError(path, err))
}

// copyTo writes a complete copy under a temporary name and links it into place. Errors: *TargetError, or an error of db.
func copyTo(ctx context.Context, db *sql.DB, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return &TargetError{to, fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return &TargetError{to, err}
	}
	dir, err := os.MkdirTemp(filepath.Dir(to), ".backup-*") // 0700
	if err != nil {
		return &TargetError{to, err}
	}
	defer os.RemoveAll(dir)
	part := filepath.Join(dir, "part.db")
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", part); isTargetError(err) {
		return &TargetError{to, err}
	} else if err != nil {
		return err
	}
	err = errors.Join(os.Chmod(part, 0o600), syncFile(part))
	if err == nil { // only a synced copy gets the final name
		err = os.Link(part, to)
	}
	if err == nil {
		err = syncDir(filepath.Dir(to))
	}
	if err != nil {
		return &TargetError{to, err}
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Restore replaces the database at path by a copy of the backup. The old database is kept under the returned name ("" if
// there was none). No host may use path: call Restore under the lock of its state folder. A backup that is damaged or
// newer than this binary is refused, and nothing is changed.
func Restore(ctx context.Context, from, path string) (kept string, err error) {
	if err := Check(ctx, from); err != nil {
		return "", err
	}
	db, err := openReadOnly(from)
	if err != nil {
		return "", err
	}
	defer db.Close()
	fresh := path + ".restored"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by an interrupted restore
		return "", err
	}
	if err := copyTo(ctx, db, fresh); err != nil {
		return "", fmt.Errorf("restore %s: %w", from, err)
	}
	if kept, err = setAside(path); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, path); err != nil {
		return kept, err
	}
	return kept, syncDir(filepath.Dir(path))
}

// setAside renames a database together with its log: either without the other counts as damage.
func setAside(path string) (kept string, err error) {
	aside := path + time.Now().UTC().Format(".20060102T150405.000")
	for _, part := range []string{"-wal", "-shm", ""} { // the file is last: while it exists, a start uses it or refuses
		err := os.Rename(path+part, aside+part)
		if err == nil {
			kept = aside
		} else if !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	return kept, nil
}

// openReadOnly opens an existing database without ever writing to it. SQLite still makes the files of a log beside it, unless one of
// the parameters is immutable=1, which requires that no host uses the database.
func openReadOnly(path string, parameters ...string) (*sql.DB, error) {
	if err := checkThisLibrary(); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no database %s: name another, or the state folder with --state", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file; choose a database file", path)
	case info.Size() == 0:
		return nil, &CorruptError{Path: path, Detail: "the file is empty"}
	}
	return sql.Open("sqlite3", "file:"+escaped(path)+"?"+strings.Join(append(parameters, "mode=ro", "_busy_timeout=5000"), "&"))
}

// checkVersion refuses a database whose version is newer than this binary's last migration.
func checkVersion(ctx context.Context, db *sql.DB, path string) error {
	var tables int64
	err := db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+goose.DefaultTablename).Scan(&tables)
	if err != nil {
		return &CorruptError{Path: path, Detail: "it contains no spacehost tables: " + err.Error()}
	}
	own, err := fs.Glob(files, "*.sql")
	if err != nil {
		return err
	}
	last, err := goose.NumericComponent(own[len(own)-1])
	if err != nil {
		return err
	}
	if tables > last {
		return &NewerError{Path: path, Database: tables, Binary: last}
	}
	return nil
}

func checkOK(ctx context.Context, db *sql.DB, path, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		found = append(found, line)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if detail := strings.Join(found, "; "); detail != "ok" {
		return &CorruptError{Path: path, Detail: detail}
	}
	return nil
}

// RemoteError refuses a network file system: SQLite's log index is shared memory, and its locks are the kernel's.
type RemoteError struct{ Path, FileSystem string }

func (e *RemoteError) Error() string {
	return fmt.Sprintf("database %s would be on %s, which lacks the locks and shared memory that SQLite needs, so charges could be lost: "+
		"choose a folder on a local disk with --state", e.Path, e.FileSystem)
}

// remoteFileSystems lists network file systems by the magic numbers of linux/magic.h.
var remoteFileSystems = map[uint32]string{
	0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x517B: "SMB", 0x01021997: "9p", 0x5346414F: "AFS", 0x00C36400: "Ceph",
}

func checkLocal(path string) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &s); err != nil {
		return err
	}
	if name, ok := remoteFileSystems[uint32(s.Type)]; ok {
		return &RemoteError{Path: path, FileSystem: name}
	}
	return nil
}
