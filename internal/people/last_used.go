package people

import (
	"context"
	"sync"
	"time"
)

// lastUsedWriter writes the last use of tokens in the background. It writes one at a time, so that many of them never
// delay a transaction of the ledger by more than one write.
type lastUsedWriter struct {
	mu      sync.Mutex
	waiting map[string]time.Time // by the token's ID
	busy    bool
	stop    context.CancelFunc // cancels the running writes
	closed  bool
	writing sync.WaitGroup
}

// add schedules a write and returns at once. A failed write is dropped and does not fail the call: the next minute brings
// another.
func (w *lastUsedWriter) add(id string, now time.Time, write func(ctx context.Context, id string, now time.Time) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.waiting == nil {
		w.waiting = map[string]time.Time{}
	}
	w.waiting[id] = now
	if w.busy {
		return
	}
	w.busy = true
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.writing.Go(func() {
		defer stop()
		for id, now, ok := w.take(); ok; id, now, ok = w.take() {
			_ = write(ctx, id, now)
		}
	})
}

// take removes one waiting use. Without one it returns false, and the writing goroutine must end.
func (w *lastUsedWriter) take() (id string, now time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, now := range w.waiting {
		delete(w.waiting, id)
		return id, now, true
	}
	w.busy = false
	return "", time.Time{}, false
}

// closeTime bounds the wait of Close for a database that another program has locked.
const closeTime = time.Second

// Close returns when no write is running any more. It may be called twice. Lookups still work, and their uses are not
// written.
func (s *Store) Close() {
	w := &s.lastUsed
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	defer time.AfterFunc(closeTime, w.abort).Stop()
	w.writing.Wait()
}

func (w *lastUsedWriter) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.waiting)
	if w.stop != nil {
		w.stop()
	}
}
