package audit

import (
	"context"
	"errors"
	"time"
)

// Bounds of the background writes.
const (
	mostWaiting  = 1000             // Records that wait for the database
	writeTimeout = 10 * time.Second // of what waits, while another program has locked the database
	listWait     = time.Second      // of List, for what waits
)

var (
	errFull   = errors.New("too many audit entries wait for the database")
	errClosed = errors.New("the audit log is closed")
)

// Queue stores a Record in the background and returns at once: an answer never waits for the database. failed is called, once and
// from any goroutine, if the Record cannot be stored.
func (l *Log) Queue(e Record, failed func(error)) {
	if err := l.enqueue(queued{e, failed}); err != nil {
		failed(err)
	}
}

// queued is a Record that waits for the database.
type queued struct {
	record Record
	failed func(error)
}

func (l *Log) enqueue(q queued) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed
	case len(l.waiting) >= mostWaiting:
		return errFull
	}
	l.waiting = append(l.waiting, q)
	if l.idle == nil {
		l.idle = make(chan struct{})
		go l.writeWaiting()
	}
	return nil
}

// writeWaiting writes what waits until nothing does.
func (l *Log) writeWaiting() {
	for all := l.take(); len(all) > 0; all = l.take() {
		l.write(all)
	}
}

// take removes what waits. Without any it returns nil, and the writing goroutine must end.
func (l *Log) take() []queued {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.waiting
	l.waiting = nil
	if len(all) == 0 {
		close(l.idle)
		l.idle = nil
	}
	return all
}

func (l *Log) write(all []queued) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	for _, q := range all {
		if err := l.Add(ctx, q.record); err != nil {
			q.failed(err)
		}
	}
}

// written returns a channel that is closed when nothing waits; nil if nothing does now.
func (l *Log) written() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.idle
}

// Close writes what waits. Records that are queued later fail. It may be called twice.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	if idle := l.written(); idle != nil {
		<-idle
	}
}

// awaitWritten waits a short time for the Records that were queued, so that a list after a change has it.
func (l *Log) awaitWritten(ctx context.Context) {
	idle := l.written()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-time.After(listWait):
	case <-ctx.Done():
	}
}
