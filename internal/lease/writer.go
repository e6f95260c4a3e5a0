package lease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/quota"
)

// writer runs transactions one after the other. Requests that arrive during a commit share the next transaction,
// so that one fsync serves all of them (group commit). Each request has its own result, and is answered only after
// the commit. The writer has no goroutine: a request that finds no leader becomes the leader, and hands over to
// the first waiting request.
//
// Writes of writeDeferred do not wait for the fsync. They are committed, so that every reader sees them and a
// crash of the host keeps them. The fsync follows shortly after. A power cut before it takes all of them back.
type writer struct {
	db  *sql.DB
	log *zap.Logger
	// sync flushes to disk what was committed without fsync; nil: each commit has its own fsync.
	sync func() error
	// noBatching makes one transaction for each request; for a comparison.
	noBatching bool

	mu        sync.Mutex
	trouble   *StorageError   // as logged last; nil: none
	waiting   []*writeRequest // the first of them is the leader, or is about to be
	leading   bool
	commits   uint64 // number of commits without fsync
	synced    uint64 // number of those that are flushed
	syncDue   uint64 // the number up to which they have to be flushed now
	syncing   bool
	closed    bool
	syncGroup sync.WaitGroup
}

// writeRequest is written as a whole or not at all.
type writeRequest struct {
	label     string
	do        func(tx quota.Tx) error
	syncDelay time.Duration // how long after the commit its fsync may start; 0: the commit includes it
	lead      chan struct{} // closed when the request becomes the leader
	done      chan struct{} // closed when err is final
	err       error
}

const (
	// writeTimeout is how long a request waits: as long as SQLite waits for a lock of another process.
	writeTimeout = 5 * time.Second
	// maxBatch bounds how long the first request of a transaction waits for the last.
	maxBatch = 64
)

// busyError reports that a request was not written in time; nothing of it was written.
type busyError struct{ label string }

func (e *busyError) Error() string {
	return fmt.Sprintf("%s: not written within %s because the database is busy; close other programs that have it open", e.label, writeTimeout)
}

// write returns do's own error, or the error of the transaction. If ctx ends before the request is taken, nothing
// is written and the error is ctx's. Once do has run, write waits for the result.
func (w *writer) write(ctx context.Context, what string, do func(tx quota.Tx) error) error {
	return w.submit(ctx, &writeRequest{label: what, do: do})
}

// writeDeferred is write without its fsync. The fsync starts after syncDelay, or with an earlier one.
func (w *writer) writeDeferred(ctx context.Context, what string, syncDelay time.Duration, do func(tx quota.Tx) error) error {
	if w.sync == nil {
		syncDelay = 0
	}
	return w.submit(ctx, &writeRequest{label: what, do: do, syncDelay: syncDelay})
}

// close returns once everything is on disk. No write may follow.
func (w *writer) close() {
	w.mu.Lock()
	w.requestSync(w.commits)
	w.closed = true // everything that becomes due from now on is flushed already
	w.mu.Unlock()
	w.syncGroup.Wait()
}

func (w *writer) submit(ctx context.Context, req *writeRequest) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", req.label, err)
	}
	req.lead, req.done = make(chan struct{}), make(chan struct{})
	if w.enqueue(req) {
		w.runBatch()
	} else {
		w.await(ctx, req)
	}
	<-req.done
	return req.err
}

// enqueue reports whether the request becomes the leader.
func (w *writer) enqueue(req *writeRequest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, req)
	lead := !w.leading
	w.leading = true
	return lead
}

// await returns when the request is done, was withdrawn, or has led.
func (w *writer) await(ctx context.Context, req *writeRequest) {
	timer := time.NewTimer(writeTimeout)
	defer timer.Stop()
	select {
	case <-req.done:
	case <-req.lead:
		w.runBatch()
	case <-ctx.Done():
		w.withdraw(req, fmt.Errorf("%s: %w", req.label, ctx.Err()))
	case <-timer.C:
		w.withdraw(req, storageError(&busyError{req.label}))
	}
}

// withdraw has no effect on a request that is being written. A request that was just made the leader must lead,
// because others wait.
func (w *writer) withdraw(req *writeRequest, err error) {
	w.mu.Lock()
	i := slices.Index(w.waiting, req)
	leads := false
	select {
	case <-req.lead:
		leads = true
	default:
		if i >= 0 {
			w.waiting = slices.Delete(w.waiting, i, i+1)
			req.err = err
			close(req.done)
		}
	}
	w.mu.Unlock()
	if leads {
		w.runBatch()
	}
}

// runBatch writes the waiting requests in one transaction, then hands over to the next leader.
func (w *writer) runBatch() {
	batch, err := w.commitBatch()
	for _, req := range batch {
		if req.err == nil && err != nil {
			req.err = fmt.Errorf("%s: %w", req.label, err)
		}
		req.err = storageError(req.err)
	}
	w.logTrouble(batch)
	for _, req := range batch {
		close(req.done)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leading = len(w.waiting) > 0; w.leading {
		close(w.waiting[0].lead)
	}
}

// commitBatch returns the requests that it has taken. Its error applies to all of them.
func (w *writer) commitBatch() (batch []*writeRequest, err error) {
	ctx := context.Background()
	conn, err := w.db.Conn(ctx) // the only one there is
	if err != nil {
		return w.takeBatch(false, false), err
	}
	defer conn.Close()
	deferSync := w.allDeferrable()
	if deferSync {
		defer setSyncFull(ctx, conn)
	}
	err = begin(ctx, conn, deferSync)
	batch = w.takeBatch(err == nil, deferSync) // only now: meanwhile more requests have arrived, or have timed out
	if err != nil {
		return batch, err
	}
	if err = commit(ctx, conn, batch); err == nil && deferSync {
		w.noteUnsynced(batch)
	}
	return batch, err
}

// allDeferrable reports whether no waiting request needs an fsync. A request that needs one and arrives later goes
// into the next transaction.
func (w *writer) allDeferrable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.waiting, func(req *writeRequest) bool { return req.syncDelay == 0 })
}

// begin begins a transaction by hand: database/sql starts a goroutine for each Tx and for each query in it, and every
// grant of a GPU waits for several. If deferSync is true, commits on conn omit their fsync
// (sqlite.org/pragma.html#pragma_synchronous) until setSyncFull. The pragma takes effect when it is compiled. Therefore
// ctx must not be one that can end, or go-sqlite3 caches the compiled statement for the next time.
func begin(ctx context.Context, conn *sql.Conn, deferSync bool) error {
	statements := "BEGIN IMMEDIATE"
	if deferSync {
		statements = "PRAGMA synchronous=NORMAL; " + statements
	}
	_, err := conn.ExecContext(ctx, statements)
	return err
}

// setSyncFull drops a connection that it cannot restore to the settings of migrations.Open.
func setSyncFull(ctx context.Context, conn *sql.Conn) {
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous=FULL"); err != nil {
		drop(conn)
	}
}

// noteUnsynced counts a commit without fsync, and schedules its fsync. (A later commit with fsync does not replace
// it: if that commit has changed no page, SQLite writes nothing, and so flushes nothing.)
func (w *writer) noteUnsynced(batch []*writeRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits++
	first, commit := slices.MinFunc(batch, func(a, b *writeRequest) int { return cmp.Compare(a.syncDelay, b.syncDelay) }), w.commits
	time.AfterFunc(first.syncDelay, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.requestSync(commit)
	})
}

// requestSync makes sure that the given commit is flushed. Commits that become due during an fsync get another
// one. The caller holds mu.
func (w *writer) requestSync(commit uint64) {
	w.syncDue = max(w.syncDue, commit)
	if w.synced < w.syncDue && !w.syncing && !w.closed {
		w.syncing = true
		w.syncGroup.Go(w.syncLoop)
	}
}

// syncLoop runs fsyncs until nothing is due. A failed fsync is not repeated for the same commits.
func (w *writer) syncLoop() {
	for tried := uint64(0); ; {
		upto, more := w.unsynced(tried)
		if !more {
			return
		}
		if err := w.sync(); err != nil {
			w.log.Error("fsync failed: the last commits may not survive a power cut", zap.Error(err))
		} else {
			w.markSynced(upto)
		}
		tried = upto
	}
}

func (w *writer) unsynced(tried uint64) (upto uint64, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.syncing = w.syncDue > max(w.synced, tried)
	return w.commits, w.syncing
}

func (w *writer) markSynced(upto uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = max(w.synced, upto)
}

// takeBatch takes the requests of one transaction, or all waiting ones if there is no transaction. A transaction
// without fsync takes only the requests at the head of the queue that need none.
func (w *writer) takeBatch(inTx, deferSync bool) []*writeRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting)
	if inTx {
		n = min(n, maxBatch)
	}
	if inTx && w.noBatching {
		n = 1
	}
	if i := slices.IndexFunc(w.waiting[:n], func(req *writeRequest) bool { return req.syncDelay == 0 }); deferSync && i >= 0 && inTx {
		n = i
	}
	batch := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return batch
}

// commit writes the batch in the transaction of conn, each request as a whole or not at all. Its error applies to all
// of them: then nothing is written.
func commit(ctx context.Context, conn *sql.Conn, batch []*writeRequest) (err error) {
	defer func() {
		if err != nil {
			rollback(ctx, conn)
		}
	}()
	for _, req := range batch {
		if err := runInSavepoint(ctx, conn, req, len(batch) == 1); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

// rollback drops a connection that may still be in the transaction. Some errors have ended it already
// (sqlite.org/lang_transaction.html), and then there is nothing to roll back.
func rollback(ctx context.Context, conn *sql.Conn) {
	_, err := conn.ExecContext(ctx, "ROLLBACK")
	if err != nil && !strings.Contains(err.Error(), "no transaction is active") {
		drop(conn)
	}
}

// drop makes database/sql close the connection instead of using it again.
func drop(conn *sql.Conn) { _ = conn.Raw(func(any) error { return driver.ErrBadConn }) }

// runInSavepoint keeps what one request has written, or rolls back that request alone. If the rollback fails, the
// request's error is that of tx. Some errors (a full disk, for one) make SQLite roll back the whole transaction,
// and with it the savepoint.
func runInSavepoint(ctx context.Context, tx quota.Tx, req *writeRequest, alone bool) error {
	if alone {
		req.err = req.attempt(tx)
		return req.err
	}
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	if req.err = req.attempt(tx); req.err != nil {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return req.err
		}
	}
	_, err := tx.ExecContext(ctx, "RELEASE one")
	return err
}

// attempt turns a panic into the request's own error, because the leader has other requests to answer.
func (req *writeRequest) attempt(tx quota.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", req.label, p, debug.Stack())
		}
	}()
	return req.do(tx)
}
