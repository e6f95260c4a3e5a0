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
	solo bool

	mu      sync.Mutex
	trouble *StorageError // as noteTrouble has said it; nil: none
	waiting []*write      // the first of them leads, or is about to
	leading bool
	commits uint64 // how many there were without fsync
	synced  uint64 // how many of them are on the disk
	due     uint64 // up to which one they are to be there now
	syncing bool
	closed  bool
	syncs   sync.WaitGroup
}

// write is one wish: all of it or nothing of it is written.
type write struct {
	what  string
	do    func(tx *sql.Tx) error
	later time.Duration // it need not be on the disk when it is done, and is that much later; 0: it must be
	lead  chan struct{} // closed when it is its turn to lead
	done  chan struct{} // closed when err is final
	err   error
}

const (
	// patience is how long a write waits for its turn: as long as SQLite for a lock that another process holds.
	patience = 5 * time.Second
	// mostTogether bounds what the first of a transaction waits for the last of it.
	mostTogether = 64
)

// busyError says that the database did not come to a write in time; nothing of it was written.
type busyError struct{ what string }

func (e *busyError) Error() string {
	return fmt.Sprintf("%s: the database was busy for %s (does another program hold it open?)", e.what, patience)
}

// write returns do's error as it is, or that of the transaction that it was in. When ctx ends before its turn, nothing
// is written and the error is ctx's; once do has run, its result is awaited.
func (w *writer) write(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	return w.enter(ctx, &write{what: what, do: do})
}

// soon is write without its fsync, which begins that much later, or with another that is due before.
func (w *writer) soon(ctx context.Context, what string, later time.Duration, do func(tx *sql.Tx) error) error {
	if w.sync == nil {
		later = 0
	}
	return w.enter(ctx, &write{what: what, do: do, later: later})
}

// close returns once the disk has all. Nobody may write any more.
func (w *writer) close() {
	w.mu.Lock()
	w.keepUp(w.commits)
	w.closed = true // what comes due from here on has been
	w.mu.Unlock()
	w.syncs.Wait()
}

func (w *writer) enter(ctx context.Context, one *write) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", one.what, err)
	}
	one.lead, one.done = make(chan struct{}), make(chan struct{})
	if w.join(one) {
		w.together()
	} else {
		w.await(ctx, one)
	}
	<-one.done
	return one.err
}

// join reports whether one is to lead.
func (w *writer) join(one *write) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, one)
	lead := !w.leading
	w.leading = true
	return lead
}

// await returns when one is done, has been withdrawn, or has led.
func (w *writer) await(ctx context.Context, one *write) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-one.lead:
		w.together()
	case <-ctx.Done():
		w.withdraw(one, fmt.Errorf("%s: %w", one.what, ctx.Err()))
	case <-timer.C:
		w.withdraw(one, storageError(&busyError{one.what}))
	}
}

// withdraw does nothing for a write that is under way. One that has just been made to lead must do so: others wait.
func (w *writer) withdraw(one *write, err error) {
	w.mu.Lock()
	i := slices.Index(w.waiting, one)
	leads := false
	select {
	case <-one.lead:
		leads = true
	default:
		if i >= 0 {
			w.waiting = slices.Delete(w.waiting, i, i+1)
			one.err = err
			close(one.done)
		}
	}
	w.mu.Unlock()
	if leads {
		w.together()
	}
}

// together makes one transaction of what waits, then lets the next lead.
func (w *writer) together() {
	all, err := w.transact()
	for _, one := range all {
		if one.err == nil && err != nil {
			one.err = fmt.Errorf("%s: %w", one.what, err)
		}
		one.err = storageError(one.err)
	}
	w.noteTrouble(all)
	for _, one := range all {
		close(one.done)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leading = len(w.waiting) > 0; w.leading {
		close(w.waiting[0].lead)
	}
}

// transact returns what it has taken of those that wait. The error is everybody's.
func (w *writer) transact() (all []*write, err error) {
	ctx := context.Background()
	conn, err := w.db.Conn(ctx) // the only one there is
	if err != nil {
		return w.take(false, false), err
	}
	defer conn.Close()
	relaxed := w.mayRelax() && relax(ctx, conn)
	if relaxed {
		defer tighten(ctx, conn)
	}
	tx, err := conn.BeginTx(ctx, nil)
	all = w.take(err == nil, relaxed) // only now: meanwhile more have come, or have lost patience
	if err != nil {
		return all, err
	}
	if err = commit(tx, all); err == nil && relaxed {
		w.owe(all)
	}
	return all, err
}

// mayRelax reports whether nobody who waits needs the disk's word. Those that need it, and come now, go into the next.
func (w *writer) mayRelax() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.waiting, func(one *write) bool { return one.later == 0 })
}

// relax lets commits on conn leave out their fsync (sqlite.org/pragma.html#pragma_synchronous), until tighten. The pragma
// works when it is compiled: ctx must not be one that can end, or go-sqlite3 keeps it, compiled, for the next time.
func relax(ctx context.Context, conn *sql.Conn) bool {
	_, err := conn.ExecContext(ctx, "PRAGMA synchronous=NORMAL")
	return err == nil
}

// tighten gives up a connection that it cannot bring back to how migrations.Open has made it.
func tighten(ctx context.Context, conn *sql.Conn) {
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous=FULL"); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // says just that
	}
}

// owe counts a commit of all without fsync, and sees to it that there will be one. (A commit with fsync pays for nothing: if
// it has changed no page SQLite writes nothing, and so makes sure of nothing that came before.)
func (w *writer) owe(all []*write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commits++
	first, commit := slices.MinFunc(all, func(a, b *write) int { return cmp.Compare(a.later, b.later) }), w.commits
	time.AfterFunc(first.later, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.keepUp(commit)
	})
}

// keepUp sees to it that the disk gets that commit. For what comes due while an fsync is made there is another. The caller
// holds mu.
func (w *writer) keepUp(commit uint64) {
	w.due = max(w.due, commit)
	if w.synced < w.due && !w.syncing && !w.closed {
		w.syncing = true
		w.syncs.Go(w.catchUp)
	}
}

// catchUp makes fsyncs until nothing is left to be had. One that fails is not made again for the same commits.
func (w *writer) catchUp() {
	for tried := uint64(0); ; {
		upto, behind := w.behind(tried)
		if !behind {
			return
		}
		if err := w.sync(); err != nil {
			w.log.Error("what was committed last may not outlive a power cut", zap.Error(err))
		} else {
			w.keep(upto)
		}
		tried = upto
	}
}

func (w *writer) behind(tried uint64) (upto uint64, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.syncing = w.due > max(w.synced, tried)
	return w.commits, w.syncing
}

func (w *writer) keep(upto uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.synced = max(w.synced, upto)
}

// take takes what goes into one transaction; all that wait, if there is none to be had. Into a relaxed one only those at
// the head go that need no more.
func (w *writer) take(begun, relaxed bool) []*write {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting)
	if begun {
		n = min(n, mostTogether)
	}
	if begun && w.solo {
		n = 1
	}
	if i := slices.IndexFunc(w.waiting[:n], func(one *write) bool { return one.later == 0 }); relaxed && i >= 0 && begun {
		n = i
	}
	all := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return all
}

// commit writes all into tx, each whole or not at all. Its error is everybody's: then nothing is written.
func commit(tx *sql.Tx, all []*write) error {
	defer tx.Rollback()
	for _, one := range all {
		if err := apart(tx, one, len(all) == 1); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// apart keeps what one has written, or takes it back and leaves the others'. An error of its own is that of tx: some
// errors (a full disk, for one) make SQLite give up the whole transaction, and with it the savepoint.
func apart(tx *sql.Tx, one *write, alone bool) error {
	if alone {
		one.err = one.attempt(tx)
		return one.err
	}
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return err
	}
	if one.err = one.attempt(tx); one.err != nil {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return one.err
		}
	}
	_, err := tx.Exec("RELEASE one")
	return err
}

// attempt makes a panic an error of its own: who leads has others to answer.
func (one *write) attempt(tx *sql.Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", one.what, p, debug.Stack())
		}
	}()
	return one.do(tx)
}
