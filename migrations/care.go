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

// Check reads all of the database at path and every index, and adds up the ledger. A host may run on it meanwhile. It
// returns nil, *CorruptError, *NewerError, or why it could not look.
func Check(ctx context.Context, path string) error {
	db, err := inspect(path)
	if err != nil {
		return err
	}
	defer db.Close()
	return explain(path, look(ctx, db, path))
}

func look(ctx context.Context, db *sql.DB, path string) error {
	for _, question := range []string{"PRAGMA integrity_check(3)", "SELECT coalesce((SELECT 'rows of ' || \"table\" || ' belong to nothing' FROM pragma_foreign_key_check LIMIT 1), 'ok')"} {
		if err := answersOK(ctx, db, path, question); err != nil {
			return err
		}
	}
	if err := refuseNewer(ctx, db, path); err != nil {
		return err
	}
	for _, question := range []string{wrongSums, wrongPairs} {
		if err := answersOK(ctx, db, path, question); err != nil {
			return err
		}
	}
	return nil
}

// wrongSums names a window whose sums are not those of its lines; the ledger decides, the sums are for speed.
const wrongSums = `SELECT coalesce((SELECT 'the sums of window ' || w.id || ' of ' || w.identity || ' are not those of its ledger'
	FROM windows w LEFT JOIN (SELECT window_id,
		sum(CASE kind WHEN 'hold' THEN held_ms WHEN 'settle' THEN -held_ms ELSE 0 END) AS held,
		sum(CASE kind WHEN 'settle' THEN charged_ms WHEN 'reset' THEN -returned_ms ELSE 0 END) AS charged,
		sum(CASE kind WHEN 'grant' THEN returned_ms ELSE 0 END) AS granted
		FROM ledger GROUP BY window_id) l ON l.window_id = w.id
	WHERE w.held_ms <> coalesce(l.held, 0) OR w.charged_ms <> coalesce(l.charged, 0) OR w.granted_ms <> coalesce(l.granted, 0) LIMIT 1), 'ok')`

// wrongPairs names a lease whose settlement is not that of its hold, or that has ended without one.
const wrongPairs = `SELECT coalesce((SELECT 'the settlement of lease ' || s.lease_id || ' is not that of a hold in its window'
	FROM ledger s LEFT JOIN ledger h ON h.lease_id = s.lease_id AND h.kind = 'hold'
	WHERE s.kind = 'settle' AND (h.id IS NULL OR h.window_id <> s.window_id OR h.held_ms <> s.held_ms) LIMIT 1),
	(SELECT 'lease ' || l.id || ' has ended, and its hold is not settled'
	FROM leases l JOIN ledger h ON h.lease_id = l.id AND h.kind = 'hold' LEFT JOIN ledger s ON s.lease_id = l.id AND s.kind = 'settle'
	WHERE l.ended_at IS NOT NULL AND s.id IS NULL LIMIT 1), 'ok')`

// Backup writes a copy of the database at path, as it is at one moment, to a file that must not exist yet. A host may
// run on path meanwhile. An interrupted backup leaves nothing at to.
func Backup(ctx context.Context, path, to string) error {
	db, err := inspect(path)
	if err != nil {
		return err
	}
	defer db.Close()
	err = copyTo(ctx, db, to)
	if err == nil || errors.As(err, new(*TargetError)) { // which is not about the database
		return err
	}
	return fmt.Errorf("back up %s: %w", path, explain(path, err))
}

// copyTo makes a whole copy under another name first, and links it into place. Errors: *TargetError, or of db.
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
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", part); isOfTarget(err) {
		return &TargetError{to, err}
	} else if err != nil {
		return err
	}
	err = errors.Join(os.Chmod(part, 0o600), syncFile(part))
	if err == nil { // only what the disk has gets its name
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

// Restore puts a copy of the backup in the place of the database at path, which is kept beside it under the name that
// is returned ("" if there was none). No host may run on path: call it under the lock of its state folder. A backup
// that is damaged or newer than this binary is refused, and nothing is changed.
func Restore(ctx context.Context, from, path string) (kept string, err error) {
	if err := Check(ctx, from); err != nil {
		return "", err
	}
	db, err := inspect(from)
	if err != nil {
		return "", err
	}
	defer db.Close()
	fresh := path + ".restored"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a restore that was interrupted
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

// setAside moves a database with its log: either without the other is damage.
func setAside(path string) (kept string, err error) {
	aside := path + time.Now().UTC().Format(".20060102T150405.000")
	for _, part := range []string{"-wal", "-shm", ""} { // the file last: as long as it is there, a start finds it or refuses
		err := os.Rename(path+part, aside+part)
		if err == nil {
			kept = aside
		} else if !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
	}
	return kept, nil
}

// inspect opens a database that is there, and never writes to it.
func inspect(path string) (*sql.DB, error) {
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
		return nil, fmt.Errorf("%s is no database file", path)
	case info.Size() == 0:
		return nil, &CorruptError{Path: path, Detail: "the file has no bytes"}
	}
	return sql.Open("sqlite3", "file:"+escaped(path)+"?mode=ro&_busy_timeout=5000")
}

// refuseNewer compares the version of the tables with what this binary knows.
func refuseNewer(ctx context.Context, db *sql.DB, path string) error {
	var tables int64
	err := db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+goose.DefaultTablename).Scan(&tables)
	if err != nil {
		return &CorruptError{Path: path, Detail: "it has no tables of spacehost: " + err.Error()}
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

func answersOK(ctx context.Context, db *sql.DB, path, question string) error {
	rows, err := db.QueryContext(ctx, question)
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

// RemoteError refuses a file system of another machine: SQLite's log is shared memory, and its locks are the kernel's.
type RemoteError struct{ Path, FileSystem string }

func (e *RemoteError) Error() string {
	return fmt.Sprintf("database %s would be on %s, which cannot lock and share memory as SQLite needs it, so that charges could be lost: "+
		"choose a folder on a disk of this machine with --state", e.Path, e.FileSystem)
}

// remote is by the magic numbers of linux/magic.h.
var remote = map[uint32]string{
	0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x517B: "SMB", 0x01021997: "9p", 0x5346414F: "AFS", 0x00C36400: "Ceph",
}

func refuseRemote(path string) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &s); err != nil {
		return err
	}
	if name, ok := remote[uint32(s.Type)]; ok {
		return &RemoteError{Path: path, FileSystem: name}
	}
	return nil
}
