package bundle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func paths(m Manifest) (all []string) {
	for _, e := range m.Entries {
		all = append(all, e.Path)
	}
	return all
}

func TestScanLeavesOut(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		".git/config": "", ".gitignore": "", ".env": "TOKEN=secret", "sub/.env": "not read by the host", "sub/.git": "gitdir: elsewhere",
		"__pycache__/app.pyc": "", "sub/__pycache__/x": "", "old.pyc": "", ".venv/bin/python": "-> /usr/bin/python3",
		"env/pyvenv.cfg": "", "env/bin/python": "-> /usr/bin/python3", ".gradio/flagged/log.csv": "", ".gradio/certificate.pem": "",
		".gradio/cached_examples/1": "", "app.py": "",
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := scan(t, dir, nil)
	want := []string{".gitignore", ".gradio", ".gradio/cached_examples", ".gradio/cached_examples/1", "app.py", "sub", "sub/.env"}
	if got := paths(m); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for i, want := range []string{`".env" is left out: it contains secrets`, `"old.pyc" is left out: compiled`, `"pipe" is left out: it is a socket`, `"socket" is left out`} {
		if i >= len(m.Notes) || !strings.HasPrefix(m.Notes[i], want) {
			t.Errorf("got notes %q, want %q as number %d", m.Notes, want, i)
		}
	}
}

func TestNotesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 150 {
		write(t, dir, map[string]string{fmt.Sprintf("%d.pyc", i): ""})
	}
	if m := scan(t, dir, nil); len(m.Notes) != 101 {
		t.Errorf("got %d notes, want 101", len(m.Notes))
	}
}

func TestScanRefusesLinksOutOfTheFolder(t *testing.T) {
	for target, want := range map[string]string{
		"/etc/passwd":        "absolute path",
		"../outside":         "out of the Space's folder",
		"../../outside":      "out of the Space's folder",
		"dot/../../outside":  `".." behind a name`,
		"a/../b":             `".." behind a name`,
		"./../x":             "out of the Space's folder",
		"..//..":             "out of the Space's folder",
		"inside":             "",
		"./in//side":         "",
		"nothing/there/at/a": "",
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"weights": "-> " + target})
		_, err := Scan(t.Context(), dir, nil)
		if want == "" && err == nil {
			continue
		}
		if err == nil || want == "" || !isError[*EntryError](err) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"weights"`) {
			t.Errorf("link to %s: got error %v, want %q and the name", target, err, want)
		}
	}
}

func TestScanRefusesNamesThatAreNotUTF8(t *testing.T) {
	for _, name := range []string{"\xff", "\xff/"} {
		dir := t.TempDir()
		write(t, dir, map[string]string{name: ""})
		if _, err := Scan(t.Context(), dir, nil); !isError[*EntryError](err) {
			t.Errorf("%q: got error %v, want an *EntryError", name, err)
		}
	}
}

func TestScanOfAMissingFolder(t *testing.T) {
	if _, err := Scan(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v", err)
	}
}

func TestScanEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(os.ErrProcessDone)
	if _, err := Scan(ctx, t.TempDir(), nil); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got error %v, want the cause", err)
	}
}

// age waits until the kernel's times of the files are old enough for the cache: the time of an inode's change cannot be set.
func age(t *testing.T, path string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if id := identify(info); time.Now().UnixNano()-max(id.Changed, id.Modified) > int64(settled) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the clock stands still")
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the test has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestSecondScanReadsNothing: the first file's recorded hash is falsified, which a scan that reads the file would correct.
func TestSecondScanReadsNothing(t *testing.T) {
	dir, saved := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	app := filepath.Join(dir, "app.py")
	write(t, dir, map[string]string{"app.py": "1", "gone": "2"})
	cache := LoadCache(saved) // there is none yet
	first := scan(t, dir, cache)
	if len(cache.hashes) > 0 {
		t.Errorf("got %d hashes of files that were written just now, want none", len(cache.hashes))
	}
	age(t, app)
	scan(t, dir, cache)
	if len(cache.hashes) != 2 {
		t.Fatalf("got %d hashes, want 2", len(cache.hashes))
	}
	known := cache.hashes["app.py"]
	known.Sum[0]++
	cache.hashes["app.py"] = known
	if err := errors.Join(cache.Save(saved), os.Remove(filepath.Join(dir, "gone"))); err != nil {
		t.Fatal(err)
	}
	cache = LoadCache(saved)
	if got := scan(t, dir, cache).Entries[0].Sum; got != known.Sum {
		t.Errorf("the file was read again: got hash %s, want that of the cache", got)
	}
	if len(cache.hashes) != 1 {
		t.Errorf("got %d hashes, want that of the remaining file only", len(cache.hashes))
	}
	info, err := os.Stat(app)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"app.py": "2"}) // of the same size, and then of the same time
	if err := os.Chtimes(app, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, dir, cache).Entries[0].Sum; got == known.Sum || got == first.Entries[0].Sum {
		t.Errorf("got the old hash of a changed file")
	}
}

func TestDamagedCacheIsEmpty(t *testing.T) {
	saved := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(saved, []byte("no gob"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := LoadCache(saved); c == nil || len(c.hashes) != 0 {
		t.Errorf("got %v, want an empty cache", c)
	}
}
