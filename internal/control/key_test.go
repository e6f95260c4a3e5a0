package control

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestCreateKey: each start has a new key that only its user can read, also after a crash between write and rename.
func TestCreateKey(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	state := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(outside, filepath.Join(state, "control.key.new")); err != nil {
		t.Fatal(err)
	}
	if key, err := ReadKey(state); key != "" || err != nil {
		t.Errorf("without a host: got %q, %v, want no key", key, err)
	}
	seen := map[string]bool{}
	for range 3 {
		key, err := CreateKey(state)
		read, unread := ReadKey(state)
		if err != nil || unread != nil || read != key || len(key) < 26 || seen[key] {
			t.Errorf("created %q (%v), read %q (%v)", key, err, read, unread)
		}
		seen[key] = true
		if info, err := os.Stat(keyPath(state)); err != nil || info.Mode() != 0o600 {
			t.Errorf("mode of the key: %v (%v), want -rw-------", info.Mode(), err)
		}
	}
	if entries, _ := os.ReadDir(state); len(entries) != 1 {
		t.Errorf("%v in the folder, want the key alone", entries)
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("the key was written through a link")
	}
}
