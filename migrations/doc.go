// Package migrations opens the SQLite database, migrates its tables, and checks, backs up and restores it.
//
// # Terms
//
//   - A migration is one numbered .sql file, applied once and in order by goose. goose stores only the numbers of applied
//     files, so a comment in a file may change, but a statement may not.
//   - The write-ahead log is the file path-wal. The database and its log must be kept, moved and restored together.
//
// # Functions
//
// The host calls Open once per start, under the lock of its state folder. Open returns the only handle that writes, with
// one connection. OpenReads returns a second, read-only handle. Syncer returns the fsync for commits that were made with
// synchronous=NORMAL (package lease). Check, Backup and Restore implement `spacehost db`.
//
// # States of the database file
//
//	missing, no log ──Open──▶ created ──migrate──▶ current version
//	older version ──Open──▶ migrated to the current version
//	newer version ──Open──▶ *NewerError, unchanged
//	damaged, empty, or missing with a log ──Open──▶ *CorruptError, unchanged
//	on a network file system ──Open──▶ *RemoteError, not created
//
// # Failures
//
// A database that fails the checks is never repaired, replaced or written: an empty ledger would refund all charges, so
// this decision is the operator's. A migration is applied completely or not at all, and earlier ones stay applied.
package migrations
