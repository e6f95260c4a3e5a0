package lease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// writer makes transactions one after the other. What is asked for while one is being committed goes together in the
// next, so that one fsync serves all who wait for it (group commit); each has its own result, and nobody is told
// before the commit. It has no goroutine: who finds nobody at work leads, and hands over to the first that waits.
//
// Of what is written with soon nobody waits for the fsync: it is committed, so that every reader sees it and a crash of the
// host leaves it, and it is made before long. A power cut until then takes it back, all of it.
type writer struct {
	db  *sql.DB
	log *zap.Logger
	// sync makes the disk keep what was committed without it; nil: each commit does.
	sync func() error
	// solo makes a transaction for each; for a comparison.
	noBatching bool

	mu        sync.Mutex
	trouble   *StorageError   // as noteTrouble has said it; nil: none
	waiting   []*writeRequest // the first of them leads, or is about to
	leading   bool
	commits   uint64 // how many there were without fsync
	synced    uint64 // how many of them are on the disk
	syncDue   uint64 // up to which one they are to be there now
	syncing   bool
	closed    bool
	syncGroup sync.WaitGroup
}

// write is one wish: all of it or nothing of it is written.
type writeRequest struct {
	label     string
	do        func(tx *sql.Tx) error
	syncDelay time.Duration // it need not be on the disk when it is done, and is that much later; 0: it must be
	lead      chan struct{} // closed when it is its turn to lead
	done      chan struct{} // closed when err is final
	err       error
}

const (
	// patience is how long a write waits for its turn: as long as SQLite for a lock that another process holds.
	writeTimeout = 5 * time.Second
	// mostTogether bounds what the first of a transaction waits for the last of it.
	maxBatch = 64
)

// busyError says that the database did not come to a write in time; nothing of it was written.
type busyError struct{ label string }

func (e *busyError) Error() string {
	return fmt.Sprintf("%s: the database was busy for %s (does another program hold it open?)", e.label, writeTimeout)
}

// write returns do's error as it is, or that of the transaction that it was in. When ctx ends before its turn, nothing
// is written and the error is ctx's; once do has run, its result is awaited.
func (w *writer) write(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	return w.submit(ctx, &writeRequest{label: what, do: do})
}

// soon is write without its fsync, which begins that much later, or with another that is due before.
func (w *writer) writeDeferred(ctx context.Context, what string, syncDelay time.Duration, do func(tx *sql.Tx) error) error {
	if w.sync == nil {
		syncDelay = 0
	}
	return w.submit(ctx, &writeRequest{label: what, do: do, syncDelay: syncDelay})
}

// close returns once the disk has all. Nobody may write any more.
func (w *writer) close() {
	w.mu.Lock()
	w.requestSync(w.commits)
	w.closed = true // what comes due from here on has been
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

// join reports whether one is to lead.
func (w *writer) enqueue(req *writeRequest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, req)
	lead := !w.leading
	w.leading = true
	return lead
}

// await returns when one is done, has been withdrawn, or has led.
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

// withdraw does nothing for a write that is under way. One that has just been made to lead must do so: others wait.
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

// together makes one transaction of what waits, then lets the next lead.
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

// transact returns what it has taken of those that wait. The error is everybody's.
func (w *writer) commitBatch() (batch []*writeRequest, err error) {
	ctx := context.Background()
	conn, err := w.db.Conn(ctx) // the only one there is
	if err != nil {
		return w.takeBatch(false, false), err
	}
	defer conn.Close()
	deferSync := w.allDeferrable() && setSyncNormal(ctx, conn)
	if deferSync {
		defer setSyncFull(ctx, conn)
	}
	tx, err := conn.BeginTx(ctx, nil)
	batch = w.takeBatch(err == nil, deferSync) // only now: meanwhile more have come, or have lost patience
	if err != nil {
		return batch, err
	}
	if err = commit(tx, batch); err == nil && deferSync {
		w.noteUnsynced(batch)
	}
	return batch, err
}

// mayRelax reports whether nobody who waits needs the disk's word. Those that need it, and come now, go into the next.
func (w *writer) allDeferrable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.waiting, func(req *writeRequest) bool { return req.syncDelay == 0 })
}

// relax lets commits on conn leave out their fsync (sqlite.org/pragma.html#pragma_synchronous), until tighten. The pragma
// works when it is compiled: ctx must not be one that can end, or go-sqlite3 keeps it, compiled, for the next time.
func setSyncNormal(ctx context.Context, conn *sql.Conn) bool {
	_, err := conn.ExecContext(ctx, "PRAGMA synchronous=NORMAL")
	return err == nil
}

// tighten gives up a connection that it cannot bring back to how migrations.Open has made it.
func setSyncFull(ctx context.Context, conn *sql.Conn) {
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous=FULL"); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // says just that
	}
}

// owe counts a commit of all without fsync, and sees to it that there will be one. (A commit with fsync pays for nothing: if
// it has changed no page SQLite writes nothing, and so makes sure of nothing that came before.)
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

// keepUp sees to it that the disk gets that commit. For what comes due while an fsync is made there is another. The caller
// holds mu.
func (w *writer) requestSync(commit uint64) {
	w.syncDue = max(w.syncDue, commit)
	if w.synced < w.syncDue && !w.syncing && !w.closed {
		w.syncing = true
		w.syncGroup.Go(w.syncLoop)
	}
}

// catchUp makes fsyncs until nothing is left to be had. One that fails is not made again for the same commits.
func (w *writer) syncLoop() {
	for tried := uint64(0); ; {
		upto, more := w.unsynced(tried)
		if !more {
			return
		}
		if err := w.sync(); err != nil {
			w.log.Error("what was committed last may not outlive a power cut", zap.Error(err))
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

// take takes what goes into one transaction; all that wait, if there is none to be had. Into a deferSync one only those at
// the head go that need no more.
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

// commit writes all into tx, each whole or not at all. Its error is everybody's: then nothing is written.
func commit(tx *sql.Tx, batch []*writeRequest) error {
	defer tx.Rollback()
	for _, req := range batch {
		if err := runInSavepoint(tx, req, len(batch) == 1); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// apart keeps what one has written, or takes it back and leaves the others'. An error of its own is that of tx: some
// errors (a full disk, for one) make SQLite give up the whole transaction, and with it the savepoint.
func runInSavepoint(tx *sql.Tx, req *writeRequest, alone bool) error {
	if alone {
		req.err = req.attempt(tx)
		return req.err
	}
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return err
	}
	if req.err = req.attempt(tx); req.err != nil {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return req.err
		}
	}
	_, err := tx.Exec("RELEASE one")
	return err
}

// attempt makes a panic an error of its own: who leads has others to answer.
func (req *writeRequest) attempt(tx *sql.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", req.label, p, debug.Stack())
		}
	}()
	return req.do(tx)
}
