package lease

import (
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// These tests run in real time: SQLite itself waits.

func (h *brokerHarness) wantRefused(cause string) {
	h.t.Helper()
	_, err := h.Schedule(h.t.Context(), request())
	if trouble, ok := errors.AsType[*StorageError](err); !ok || !strings.Contains(trouble.Cause, cause) || trouble.Do == "" {
		h.t.Errorf("got %v, want it refused since %s", err, cause)
	}
	if asked := h.Ask(h.t.Context(), request()); asked == nil {
		h.t.Error("who asks is told that a call would have a GPU")
	}
}

func (h *brokerHarness) wantNoTrouble() {
	h.t.Helper()
	if trouble, asked := h.Trouble(), h.Ask(h.t.Context(), request()); trouble != nil || asked != nil {
		h.t.Errorf("trouble %v, and who asks is told %v, want neither", trouble, asked)
	}
}

// await gives what runs beside the test a while to come about.
func (h *brokerHarness) waitFor(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s", what)
		}
	}
}

// TestFullDatabase: nobody is admitted, what runs ends and is settled once there is room, and the operator reads both.
func TestFullDatabase(t *testing.T) {
	h := newBrokerHarness(t).run()
	g := h.active(7)
	h.exec(`PRAGMA max_page_count = 1`)  // which it cannot go below: not one page more
	for err := error(nil); err == nil; { // and not one line more in the pages that there are
		_, err = h.db.Exec(`INSERT INTO ledger (at, identity, window_id, kind) VALUES (0, 'user:ada', 1, 'grant')`)
	}
	h.wantRefused("disk is full")
	h.processes.Exit(7)
	h.waitFor("the lease is over", func() bool { return strings.Contains(h.journal.String(), "worker died") })
	if n := h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND lease_id = ?`, g.Lease); n != 0 {
		t.Fatal("the database was not full: the lease is settled")
	}
	h.exec(`PRAGMA max_page_count = 1000000`)
	h.waitFor("the lease is settled", func() bool {
		return h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND lease_id = ?`, g.Lease) == 1
	})
	h.waitFor("the operator reads that it is over", func() bool { return strings.Contains(h.journal.String(), "database can be written again") })
	h.wantNoTrouble()
	if said := h.journal.String(); strings.Count(said, "database cannot be written") != 1 || !strings.Contains(said, "make room") {
		t.Errorf("the log must say once that the database cannot be written, and what to do:\n%s", said)
	}
	h.stop()
}

// TestNearlyFullDisk: nobody is admitted, on a cold worker or a warm one, what runs ends as usual, and all goes on by itself
// once there is room.
func TestNearlyFullDisk(t *testing.T) {
	var free atomic.Uint64
	free.Store(minDiskFree)
	h := newBrokerHarness(t, func(c *Config) {
		c.WarmFor = time.Hour
		c.Free = func() (uint64, error) { return free.Load(), nil }
	}).run()
	g := h.active(7)
	free.Store(minDiskFree - 1)
	h.wantRefused("63 MB free")
	if err := h.Release(t.Context(), "demo", g.Lease, false); err != nil { // its worker stays warm
		t.Fatal(err)
	}
	if n := h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND lease_id = ?`, g.Lease); n != 1 {
		t.Error("what ran is not settled")
	}
	h.wantRefused("63 MB free")
	if n := h.count(`SELECT count(*) FROM leases`); n != 1 {
		t.Errorf("%d leases are written, want the first alone", n)
	}
	free.Store(minDiskFree)
	h.wantNoTrouble()
	h.grant(h.schedule())
	said := h.journal.String()
	if strings.Count(said, "disk nearly full: GPU") != 1 || strings.Count(said, "disk space recovered") != 1 || strings.Contains(said, "database cannot be written") {
		t.Errorf("the log must say once each when it begins and when it is over:\n%s", said)
	}
	h.stop()
}

// TestLockedDatabase: another program holds the write lock. A call is refused in five seconds, and a release waits.
func TestLockedDatabase(t *testing.T) {
	h := newBrokerHarness(t).run()
	g := h.active(7)
	other, err := sql.Open("sqlite3", "file:"+h.path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.wantRefused("another program")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("refused after %v", took)
	}
	released := make(chan error, 1)
	go func() { released <- h.Release(t.Context(), "demo", g.Lease, false) }()
	h.waitFor("the lease is over", func() bool { return strings.Contains(h.journal.String(), "lease ended") })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-released; err != nil {
		t.Errorf("release: %v", err)
	}
	h.grant(h.schedule())
	h.stop()
}
