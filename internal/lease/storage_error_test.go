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
		h.t.Errorf("got %v, want a refusal because %s", err, cause)
	}
	if asked := h.Ask(h.t.Context(), request()); asked == nil {
		h.t.Error("Ask accepts a call that would be refused")
	}
}

func (h *brokerHarness) wantNoTrouble() {
	h.t.Helper()
	if trouble, asked := h.Trouble(), h.Ask(h.t.Context(), request()); trouble != nil || asked != nil {
		h.t.Errorf("got trouble %v and Ask returned %v, want neither", trouble, asked)
	}
}

// waitFor polls a condition that concurrent code brings about.
func (h *brokerHarness) waitFor(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// TestFullDatabase: no Lease is admitted. A running one ends, and is settled once there is space. The log has
// both.
func TestFullDatabase(t *testing.T) {
	h := newBrokerHarness(t).run()
	g := h.active(7)
	h.exec(`PRAGMA max_page_count = 1`)  // the lower bound is the present size: no further page
	for err := error(nil); err == nil; { // and fill the existing pages
		_, err = h.db.Exec(`INSERT INTO ledger (at, identity, window_id, kind) VALUES (0, 'user:ada', 1, 'grant')`)
	}
	h.wantRefused("disk is full")
	h.processes.Exit(7)
	h.waitFor("the lease has ended", func() bool { return strings.Contains(h.journal.String(), "worker died") })
	if n := h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND lease_id = ?`, g.Lease); n != 0 {
		t.Fatal("the database was not full: the lease is settled")
	}
	h.exec(`PRAGMA max_page_count = 1000000`)
	h.waitFor("the lease is settled", func() bool {
		return h.count(`SELECT count(*) FROM ledger WHERE kind = 'settle' AND lease_id = ?`, g.Lease) == 1
	})
	h.waitFor("the log reports that the database can be written", func() bool { return strings.Contains(h.journal.String(), "database can be written again") })
	h.wantNoTrouble()
	if log := h.journal.String(); strings.Count(log, "database cannot be written") != 1 || !strings.Contains(log, "make room") {
		t.Errorf("the log must report once that the database cannot be written, with the next step:\n%s", log)
	}
	h.stop()
}

// TestNearlyFullDisk: no Lease is admitted, cold or warm. A running one ends as usual. Admissions resume by
// themselves once there is space.
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
		t.Error("the running lease is not settled")
	}
	h.wantRefused("63 MB free")
	if n := h.count(`SELECT count(*) FROM leases`); n != 1 {
		t.Errorf("%d leases are in the database, want only the first", n)
	}
	free.Store(minDiskFree)
	h.wantNoTrouble()
	h.grant(h.schedule())
	log := h.journal.String()
	if strings.Count(log, "disk nearly full: GPU") != 1 || strings.Count(log, "disk space recovered") != 1 || strings.Contains(log, "database cannot be written") {
		t.Errorf("the log must report once when the shortage begins and once when it ends:\n%s", log)
	}
	h.stop()
}

// TestLockedDatabase: another program holds the write lock. A call is refused after five seconds, and a release
// waits.
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
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("refused after %v", took)
	}
	released := make(chan error, 1)
	go func() { released <- h.Release(t.Context(), "demo", g.Lease, false) }()
	h.waitFor("the lease has ended", func() bool { return strings.Contains(h.journal.String(), "lease ended") })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-released; err != nil {
		t.Errorf("release: %v", err)
	}
	h.grant(h.schedule())
	h.stop()
}
