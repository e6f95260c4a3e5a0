package people

import (
	"context"
	"sync"
	"time"
)

// lastUsedWriter holds uses of tokens that are to be written down. One is written at a time, so that however many there are they
// never stand in the way of more than one who writes money.
type lastUsedWriter struct {
	mu      sync.Mutex
	waiting map[string]time.Time // by the token's ID
	busy    bool
	stop    context.CancelFunc // of who writes
	closed  bool
	writing sync.WaitGroup
}

// due returns at once. A mark that cannot be written costs nobody their call: the next minute brings another.
func (m *lastUsedWriter) due(id string, now time.Time, write func(ctx context.Context, id string, now time.Time) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if m.waiting == nil {
		m.waiting = map[string]time.Time{}
	}
	m.waiting[id] = now
	if m.busy {
		return
	}
	m.busy = true
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.writing.Go(func() {
		defer stop()
		for id, now, ok := m.next(); ok; id, now, ok = m.next() {
			_ = write(ctx, id, now)
		}
	})
}

// next takes one; false: there is none, and whoever asked is to end.
func (m *lastUsedWriter) next() (id string, now time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, now := range m.waiting {
		delete(m.waiting, id)
		return id, now, true
	}
	m.busy = false
	return "", time.Time{}, false
}

// closeTime bounds how long Close waits for a database that another program keeps locked.
const closeTime = time.Second

// Close returns when nothing writes any more. It may be called twice; look-ups go on, and leave no mark.
func (p *Store) Close() {
	m := &p.lastUsed
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	defer time.AfterFunc(closeTime, m.giveUp).Stop()
	m.writing.Wait()
}

func (m *lastUsedWriter) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.waiting)
	if m.stop != nil {
		m.stop()
	}
}
