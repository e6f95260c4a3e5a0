package bundle

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var sample = map[string]string{
	"app.py":            "import gradio",
	"README.md":         "---\nsdk: gradio\n---\n",
	"a/":                "",
	"a/b/":              "",
	"a/b/same.txt":      "import gradio",
	"a/b/up":            "-> ../../app.py",
	"a-b":               "sorts between a and a/b by bytes",
	"a.txt":             "x",
	"empty/":            "",
	"empty.txt":         "",
	"run.sh*":           "#!/bin/sh",
	"same.sh*":          "import gradio",
	"link":              "-> a",
	"dangling":          "-> nothing/here",
	"umlaut ä \n.bin":   strings.Repeat("0123456789", 100_000),
	".gradio/":          "",
	".gradio/cached.py": "kept",
}

func TestTreesHaveTheContentOfTheFolder(t *testing.T) {
	for name, options := range map[string]Options{"read only": {}, "writable": {Writable: true}} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), newStore(t)
			write(t, dir, sample)
			m := scan(t, dir, nil)
			tree := mustPass(t, m, dir, s, options)
			if got := read(t, tree); !maps.Equal(got, sample) {
				t.Errorf("got %q, want %q", got, sample)
			}
			if again := scan(t, tree, nil); again.Digest() != m.Digest() {
				t.Errorf("a scan of the tree has digest %s, want %s", again.Digest(), m.Digest())
			}
			if left, err := os.ReadDir(filepath.Join(s.dir, incoming)); err != nil || len(left) > 0 {
				t.Errorf("incoming has %v (%v), want nothing", left, err)
			}
		})
	}
}

func TestOnlyLackingContentsAreSent(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"a": "1234567", "b": "1234567", "c": "12"})
	var done, total int64
	progress := func(d, t int64) { done, total = d, t }
	if r := pass(t, scan(t, dir, nil), dir, s, Options{}, progress); r.sent != nil || r.received != nil || done != 9 || total != 9 {
		t.Errorf("first: got %+v, %d of %d bytes; want 9 of 9", r, done, total)
	}
	write(t, dir, map[string]string{"d": "xyz", "e*": "12"})
	var received int64
	r := pass(t, scan(t, dir, nil), dir, s, Options{Progress: func(d, _ int64) { received = d }}, progress)
	if r.sent != nil || r.received != nil || done != 3 || total != 3 || received != 3 {
		t.Errorf("second: got %+v, %d of %d bytes, received %d; want 3", r, done, total, received)
	}
	if info, err := os.Stat(filepath.Join(r.dir, "e")); err != nil || info.Mode() != 0o755 {
		t.Errorf("got mode %v (%v) of the executable twin of a blob, want 0755", info.Mode(), err)
	}
}

func TestReadTreesAreShared(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, sample)
	m := scan(t, dir, nil)
	first := mustPass(t, m, dir, s, Options{})
	if err := os.RemoveAll(dir); err != nil { // an existing tree needs no file of the front
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if second := mustPass(t, m, dir, s, Options{}); second != first {
		t.Errorf("got %s, want %s", second, first)
	}
}

func TestWritableTreesAreSeparate(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"app.py": "original"})
	m := scan(t, dir, nil)
	first := mustPass(t, m, dir, s, Options{Writable: true})
	write(t, first, map[string]string{"app.py": "changed!", "new": "1"})
	for _, options := range []Options{{Writable: true}, {}} {
		tree := mustPass(t, m, dir, s, options)
		if got := read(t, tree); !maps.Equal(got, map[string]string{"app.py": "original"}) {
			t.Errorf("%+v: got %v after a write to another tree", options, got)
		}
	}
}

// TestDamagedBlobsAreReplaced: a Space has written through a hard link, or a power cut has emptied a blob.
func TestDamagedBlobsAreReplaced(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"app.py": "original"})
	m := scan(t, dir, nil)
	for _, damage := range []string{"changed!", ""} {
		if err := os.WriteFile(filepath.Join(mustPass(t, m, dir, s, Options{}), "app.py"), []byte(damage), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := read(t, mustPass(t, m, dir, s, Options{Writable: true})); got["app.py"] != "original" {
			t.Errorf("got %q, want the original", got["app.py"])
		}
		if _, err := s.Prune(nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlobsAreLinkedNotCopied(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"a": "1"})
	info, err := os.Stat(filepath.Join(mustPass(t, scan(t, dir, nil), dir, s, Options{}), "a"))
	if err != nil {
		t.Fatal(err)
	}
	if links := info.Sys().(*syscall.Stat_t).Nlink; links != 2 {
		t.Errorf("got %d links, want 2", links)
	}
}

func TestConcurrentReceivesAndPrunes(t *testing.T) {
	s := newStore(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	write(t, dirs[0], sample)
	write(t, dirs[1], map[string]string{"app.py": "import gradio", "other": "2"})
	stop, pruned := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(pruned)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := s.Prune(nil); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			dir := dirs[i%2]
			m, err := Scan(t.Context(), dir, nil)
			if err != nil {
				t.Error(err)
				return
			}
			for range 3 {
				r := pass(t, m, dir, s, Options{Writable: i%4 == 0}, nil)
				if r.sent != nil || r.received != nil {
					t.Errorf("got %+v", r)
					return
				}
				if again, err := Scan(t.Context(), r.dir, nil); err != nil || again.Digest() != m.Digest() {
					t.Errorf("the tree has another content (%v)", err)
				}
				s.Release(r.dir)
			}
		})
	}
	all.Wait()
	close(stop)
	<-pruned
	if _, err := s.Prune(nil); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{trees, blobs, manifests, incoming} {
		if left, err := os.ReadDir(filepath.Join(s.dir, folder)); err != nil || len(left) > 0 {
			t.Errorf("%s has %d entries (%v) after all trees were released, want none", folder, len(left), err)
		}
	}
}

func TestPruneReportsSizes(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"shared": "12345", "old": "1234567"})
	old := mustPass(t, scan(t, dir, nil), dir, s, Options{})
	if err := os.Remove(filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	m := scan(t, dir, nil)
	mustPass(t, m, dir, s, Options{})
	if p, err := s.Prune(nil); err != nil || p != (Pruned{}) {
		t.Errorf("trees in use: got %+v (%v), want nothing", p, err)
	}
	s.Release(old)
	if p, err := s.Prune(nil); err != nil || p != (Pruned{Trees: 1, Blobs: 1, Bytes: 7}) {
		t.Errorf("got %+v (%v), want one tree, one blob, 7 bytes", p, err)
	}
	again, err := OpenStore(s.dir) // as after a restart: only keep protects
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if p, err := again.Prune([]string{m.Digest().String()}); err != nil || p != (Pruned{}) {
		t.Errorf("kept by digest: got %+v (%v), want nothing", p, err)
	}
	if p, err := again.Prune(nil); err != nil || p != (Pruned{Trees: 1, Blobs: 1, Bytes: 5}) {
		t.Errorf("got %+v (%v), want one tree, one blob, 5 bytes", p, err)
	}
}

func TestCancelledTransfersKeepCompleteContents(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"a": strings.Repeat("a", chunkSize), "b": strings.Repeat("b", 4*chunkSize)})
	m := scan(t, dir, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	front, node := connect(t)
	sent, received := make(chan error, 1), make(chan struct{})
	go func() {
		err := Send(t.Context(), front, m, dir, func(done, _ int64) {
			if done == 3*chunkSize {
				<-received // the receiver cannot complete the second file first
			}
		})
		front.Close()
		sent <- err
	}()
	reason := os.ErrProcessDone
	_, err := Receive(ctx, node, s, Options{Progress: func(done, _ int64) {
		if done > chunkSize {
			cancel(reason)
		}
	}})
	node.Close()
	close(received)
	if sentErr := <-sent; err == nil || context.Cause(ctx) != reason || sentErr == nil {
		t.Fatalf("got %v and %v, want errors", err, sentErr)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, trees)); len(left) > 0 {
		t.Errorf("got trees %v, want none", left)
	}
	var total int64
	if r := pass(t, m, dir, s, Options{}, func(_, all int64) { total = all }); r.received != nil || total != 4*chunkSize {
		t.Errorf("got %+v, %d bytes sent; want the second file only", r, total)
	}
}

// TestFileThatIsWrittenMeanwhile: the first read meets another content, the second one that of the manifest.
func TestFileThatIsWrittenMeanwhile(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	original := strings.Repeat("a", 3*chunkSize)
	write(t, dir, map[string]string{"a": original})
	m := scan(t, dir, nil)
	var done, total int64
	firstChunks := 0
	r := pass(t, m, dir, s, Options{}, func(d, all int64) {
		done, total = d, all
		if d != chunkSize {
			return
		}
		firstChunks++
		content := original
		if firstChunks == 1 {
			content = original[1:] + "b"
		}
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte(content), 0o644); err != nil {
			t.Error(err)
		}
	})
	if r.sent != nil || r.received != nil || firstChunks != 2 || done != 3*chunkSize || total != done {
		t.Fatalf("got %+v after %d reads, %d of %d bytes; want success in the second read", r, firstChunks, done, total)
	}
	if got := read(t, r.dir)["a"]; got != original {
		t.Error("the tree has another content")
	}
}

// TestStoreAfterACrash: what was incomplete is removed, also a folder to which a Space has taken the rights, and trees stay.
func TestStoreAfterACrash(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, sample)
	m := scan(t, dir, nil)
	tree := mustPass(t, m, dir, s, Options{})
	half := filepath.Join(s.dir, incoming, "HALF")
	write(t, half, map[string]string{"tree/a/app.py": "half", "0": "1"})
	if err := os.Chmod(filepath.Join(half, "tree", "a"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if left, err := os.ReadDir(filepath.Join(s.dir, incoming)); err != nil || len(left) > 0 {
		t.Errorf("incoming has %v (%v), want nothing", left, err)
	}
	if got, ok := again.Has(m.Digest()); !ok || got != tree {
		t.Errorf("got tree %q, want %q", got, tree)
	}
}

// TestUmaskDoesNotMatter: a tree has the modes of its manifest for any user of the agent.
func TestUmaskDoesNotMatter(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, sample)
	m := scan(t, dir, nil)
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	for _, path := range []string{".", "a", "a/b", "a/b/same.txt", "run.sh"} {
		info, err := os.Stat(filepath.Join(mustPass(t, m, dir, s, Options{}), path))
		want := os.FileMode(0o755)
		if path == "a/b/same.txt" {
			want = 0o644
		}
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got mode %v (%v), want %v", path, info.Mode(), err, want)
		}
	}
}
