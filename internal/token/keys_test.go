package token

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func openSigner(t *testing.T, dir string) *Signer {
	t.Helper()
	s, err := OpenSigner(dir)
	if err != nil {
		t.Fatalf("OpenSigner(%s): %v", dir, err)
	}
	return s
}

// keyFile returns the only key of a new state folder.
func keyFile(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "keys", "*.key"))
	if err != nil || len(found) != 1 {
		t.Fatalf("keys in %s: got %v (%v), want one", dir, found, err)
	}
	return found[0]
}

func TestKeyIsKeptOverRestart(t *testing.T) {
	dir := t.TempDir()
	token := sign(t, openSigner(t, dir), ada)
	if _, err := openSigner(t, dir).Parse(token); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	_, err := openSigner(t, t.TempDir()).Parse(token)
	wantReason(t, err, ForeignKey)
}

func TestKeyFileIsPrivate(t *testing.T) {
	dir := t.TempDir()
	openSigner(t, dir)
	path := keyFile(t, dir)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v (%v), want %o", name, info.Mode(), err, want)
		}
	}
	if key, err := os.ReadFile(path); err != nil || len(key) != keySize {
		t.Errorf("got %d bytes (%v), want %d", len(key), err, keySize)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v (%v), want only the folder of keys", entries, err)
	}
}

func TestConcurrentStartsShareKey(t *testing.T) {
	dir := t.TempDir()
	signers := make([]*Signer, 8)
	var all sync.WaitGroup
	for i := range signers {
		all.Go(func() {
			var err error
			if signers[i], err = OpenSigner(dir); err != nil {
				t.Errorf("OpenSigner: %v", err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, s := range signers {
		if !slices.Equal(slices.Collect(maps.Keys(s.keys)), []string{signers[0].kid}) {
			t.Errorf("got keys %v, want only %s", slices.Collect(maps.Keys(s.keys)), signers[0].kid)
		}
	}
}

func TestOpenSignerRefusesUnsafeKeys(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"read by the group": func(path string) error { return os.Chmod(path, 0o640) },
		"read by others":    func(path string) error { return os.Chmod(path, 0o604) },
		"written by others": func(path string) error { return os.Chmod(path, 0o602) },
		"open folder":       func(path string) error { return os.Chmod(filepath.Dir(path), 0o755) },
		"empty":             func(path string) error { return os.Truncate(path, 0) },
		"short":             func(path string) error { return os.Truncate(path, keySize-1) },
		"long":              func(path string) error { return os.Truncate(path, keySize+1) },
		"gone":              os.Remove,
		"a link":            func(path string) error { return relink(path) },
		"a folder":          func(path string) error { return os.Mkdir(filepath.Join(filepath.Dir(path), "x.key"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			openSigner(t, dir)
			if err := spoil(keyFile(t, dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenSigner(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "keys")) {
				t.Errorf("got %v, want an error that names the file", err)
			}
		})
	}
}

func relink(path string) error {
	elsewhere := filepath.Join(filepath.Dir(path), "elsewhere")
	if err := os.Rename(path, elsewhere); err != nil {
		return err
	}
	return os.Symlink(elsewhere, path)
}

func TestOpenSignerNeedsStateFolder(t *testing.T) {
	if _, err := OpenSigner(filepath.Join(t.TempDir(), "nowhere")); err == nil {
		t.Error("OpenSigner succeeded without a state folder")
	}
}
