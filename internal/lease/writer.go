package lease

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// writer makes transactions one after the other. What is asked for while one is being committed goes together in the
// next, so that one fsync serves all who wait for it (group commit); each has its own result, and nobody is told
// before the commit. It has no goroutine: who finds nobody at work leads, and hands over to the first that waits.
type writer struct {
	db      *sql.DB
	log     *zap.Logger
	failing bool // as noteTrouble has said
	// solo makes a transaction for each; for a comparison.
	solo bool

	mu      sync.Mutex
	waiting []*write // the first of them leads, or is about to
	leading bool
}

// write is one wish: all of it or nothing of it is written.
type write struct {
	what string
	do   func(tx *sql.Tx) error
	lead chan struct{} // closed when it is its turn to lead
	done chan struct{} // closed when err is final
	err  error
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
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	one := &write{what: what, do: do, lead: make(chan struct{}), done: make(chan struct{})}
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
	tx, err := w.db.BeginTx(context.Background(), nil)
	all := w.take(err == nil) // only now: meanwhile more have come, or have lost patience
	if err == nil {
		err = commit(tx, all)
	}
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

// take takes what goes into one transaction; all that wait, if there is none to be had.
func (w *writer) take(begun bool) []*write {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.waiting)
	if begun {
		n = min(n, mostTogether)
	}
	if begun && w.solo {
		n = 1
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
		one.err = one.do(tx)
		return one.err
	}
	if _, err := tx.Exec("SAVEPOINT one"); err != nil {
		return err
	}
	if one.err = one.do(tx); one.err != nil {
		if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
			return one.err
		}
	}
	_, err := tx.Exec("RELEASE one")
	return err
}
