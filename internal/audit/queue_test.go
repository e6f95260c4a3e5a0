package audit

import (
	"context"
	"testing"
	"time"

	"spacehost/migrations"
)

// TestQueue queues Records while another program has locked the database: nothing waits, and nothing is lost at the end.
func TestQueue(t *testing.T) {
	log, path := openLog(t)
	other, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	lock, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(t.Context(), `DELETE FROM audit`); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 2*mostWaiting)
	add := func() {
		log.Queue(Record{At: noon, Actor: "root", Origin: CLI, Action: "reload"}, func(err error) { failed <- err })
	}
	began := time.Now()
	add()
	for range mostWaiting + 1 {
		add()
	}
	if took := time.Since(began); took > 4*time.Second { // a write waits longer for the database
		t.Errorf("the queue took %s while the database is locked", took)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	log.awaitWritten(over) // returns
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	log.Close() // may be called twice
	refused := len(failed)
	all, err := log.List(t.Context(), time.Time{}, 3*mostWaiting)
	if err != nil || len(all)+refused != mostWaiting+2 || refused > 2 {
		t.Errorf("%d entries are stored and %d refused, want %d together; %v", len(all), refused, mostWaiting+2, err)
	}
	add()
	if err := <-failed; refused == 0 && err != errClosed {
		t.Errorf("after Close: %v", err)
	}
}

// TestListHasQueuedRecords: a list after a change has it.
func TestListHasQueuedRecords(t *testing.T) {
	log, _ := openLog(t)
	defer log.Close()
	for n := range 20 {
		log.Queue(Record{At: noon, Actor: "root", Origin: CLI, Action: "reload"}, func(err error) { t.Error(err) })
		if all, err := log.List(t.Context(), time.Time{}, 100); err != nil || len(all) != n+1 {
			t.Fatalf("%d entries, want %d; %v", len(all), n+1, err)
		}
	}
}
