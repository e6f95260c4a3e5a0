package spacelog

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// settle waits until the goroutine that removes old files has finished.
func settle(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func sizeOf(t *testing.T, pattern string) (files int, bytes int64) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // a rotation may have removed it
			files, bytes = files+1, bytes+info.Size()
		}
	}
	return files, bytes
}

// TestHostLogRotates writes three times its size to a log, which keeps its newest lines and stays within its size.
func TestHostLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "spacehost.log")
	for range 2 { // a second start continues the file
		log, err := OpenHostLog(path, 5<<20, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			if _, err := log.Write(append(bytes.Repeat([]byte("x"), 1<<20-10), '\n')); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := log.Write([]byte("last line\n")); err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var files int
	var size int64
	settle(t, "at most five files with 5 MiB", func() bool {
		files, size = sizeOf(t, filepath.Join(filepath.Dir(path), "spacehost*.log"))
		return files <= hostBackups+1 && size <= 5<<20
	})
	if files != hostBackups+1 || size < 3<<20 {
		t.Errorf("%d files with %d bytes, want 5 files with 3 to 5 MiB", files, size)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(text), "last line\n") {
		t.Errorf("the current file ends with %.20q, %v", text[max(0, len(text)-20):], err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file for its user only", info, err)
	}
	if _, err := OpenHostLog(filepath.Join(path, "below a file"), 5<<20, 0); err == nil || !strings.Contains(err.Error(), "choose another with --state") {
		t.Errorf("a folder that cannot be made: %v", err)
	}
}

// TestSpaceFloodsItsLog writes 40 MB to a log of 8 MiB.
func TestSpaceFloodsItsLog(t *testing.T) {
	state := t.TempDir()
	w := NewWriter(state, "demo", Run, nil)
	w.SetSize(8 << 20)
	line := strings.Repeat("x", 1000)
	for range 40_000 {
		w.Print("stdout", line)
	}
	w.Close()
	settle(t, "half of 8 MiB: the other half is that of the builds", func() bool {
		_, size := sizeOf(t, filepath.Join(state, "logs", "*"))
		return size <= 4<<20
	})
	if lines, err := Read(state, "demo", Run, time.Time{}, 0); err != nil || len(lines) < 2000 {
		t.Errorf("%d lines, %v: want the last 3 to 4 MiB of them", len(lines), err)
	}
}

// TestTrim checks that the oldest files of all Spaces go first, and that the files of today and of the host stay.
func TestTrim(t *testing.T) {
	state := t.TempDir()
	logs := filepath.Join(state, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Hour)
	for i, name := range []string{
		"run-a-2026-11-01T00-00-00.000.log", "build-b-2026-11-02T00-00-00.000.log", "run-b-2026-11-03T00-00-00.000.log", "run-a.log", "run-b.log", "spacehost-2026-10-01T00-00-00.000.log",
	} {
		path := filepath.Join(logs, name)
		if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, began.Add(time.Duration(i)*time.Minute), began.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		entries, err := os.ReadDir(logs)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, strings.ReplaceAll(entry.Name(), "T00-00-00.000", ""))
		}
		return strings.Join(names, " ")
	}
	for _, step := range []struct {
		limit, removed int64
		left           string
	}{
		{5000, 0, "build-b-2026-11-02.log run-a-2026-11-01.log run-a.log run-b-2026-11-03.log run-b.log spacehost-2026-10-01.log"},
		{3500, 2000, "run-a.log run-b-2026-11-03.log run-b.log spacehost-2026-10-01.log"},
		{100, 1000, "run-a.log run-b.log spacehost-2026-10-01.log"},
	} {
		if removed, err := Trim(state, step.limit); err != nil || removed != step.removed || left() != step.left {
			t.Errorf("limit %d: removed %d, %v, left %s; want %d, left %s", step.limit, removed, err, left(), step.removed, step.left)
		}
	}
}
