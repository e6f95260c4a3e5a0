package stages

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"spacehost/migrations"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// open opens the store of a database. It may be called again for the same path.
func open(t *testing.T, path string, now func() time.Time) (s *Store, closeAll func()) {
	t.Helper()
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	reads, err := migrations.OpenReads(path)
	if err != nil {
		t.Fatal(err)
	}
	s = NewStore(db, reads, now, zap.NewNop())
	return s, func() {
		s.Close()
		s.Close() // may be called twice
		_ = reads.Close()
		_ = db.Close()
	}
}

// TestRecord keeps the newest stages of each Space, in order, across a restart of the host.
func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	now := noon
	s, closeAll := open(t, path, func() time.Time { now = now.Add(time.Second); return now })
	for range maxChanges / 2 {
		s.Record("one", Change{Stage: "APP_STARTING"})
		s.Record("one", Change{Stage: "RUNTIME_ERROR", Reason: "it ended", Cause: "crash"})
		s.mu.Lock()
		waiting := len(s.waiting)
		s.mu.Unlock()
		if waiting > maxWaiting/2 {
			s.writing.Wait()
		}
	}
	s.Record("two", Change{Stage: "PAUSED", By: "user:ada"})
	s.Record("one", Change{Stage: "RUNNING"})
	closeAll()
	s.Record("one", Change{Stage: "STOPPED"}) // dropped

	s, closeAll = open(t, path, func() time.Time { return now })
	defer closeAll()
	all, err := s.List(t.Context(), "one", 2*maxChanges)
	if err != nil || len(all) != maxChanges {
		t.Fatalf("%d stages, want %d; %v", len(all), maxChanges, err)
	}
	if all[0].Stage != "RUNNING" || all[1].Cause != "crash" || all[1].Reason != "it ended" || !all[0].At.After(all[1].At) || all[0].At.Location() != time.UTC {
		t.Errorf("the newest: %+v", all[:2])
	}
	if two, err := s.List(t.Context(), "two", 10); err != nil || len(two) != 1 || two[0].By != "user:ada" {
		t.Errorf("another Space: %+v, %v", two, err)
	}
	if none, err := s.List(t.Context(), "none", 10); err != nil || none == nil || len(none) != 0 {
		t.Errorf("an unknown Space: %+v, %v", none, err)
	}
	if gone, err := s.Forget(t.Context(), all[9].At); err != nil || gone != maxChanges-10 {
		t.Errorf("forgotten: %d, %v", gone, err)
	}
	if all, err = s.List(t.Context(), "one", 2*maxChanges); err != nil || len(all) != 10 {
		t.Errorf("%d stages are left, want 10; %v", len(all), err)
	}
}

// TestPause stores pauses across a restart of the host.
func TestPause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	s, closeAll := open(t, path, func() time.Time { return noon.Add(time.Microsecond) })
	for _, reason := range []string{"first", "second"} {
		if p, err := s.Pause(t.Context(), "one", reason, "user:ada"); err != nil || p.Reason != reason || !p.At.Equal(noon) {
			t.Errorf("%+v, %v", p, err)
		}
	}
	closeAll()
	s, closeAll = open(t, path, time.Now)
	defer closeAll()
	if p, err := s.Paused(t.Context(), "one"); err != nil || p == nil || *p != (Pause{noon, "second", "user:ada"}) {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := s.Paused(t.Context(), "two"); err != nil || p != nil {
		t.Errorf("another Space: %+v, %v", p, err)
	}
	for range 2 {
		if err := s.Resume(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := s.Paused(t.Context(), "one"); err != nil || p != nil {
		t.Errorf("after the end: %+v, %v", p, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Pause(over, "one", "", "user:ada"); err == nil {
		t.Error("a pause that was not stored is reported as stored")
	}
}
