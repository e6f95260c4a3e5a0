package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// write makes a file of that many KiB.
func writeKiB(t *testing.T, path string, kib int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, kib<<10), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUsageOf checks what counts: files on this disk, each once, wherever a Space hides them.
func TestUsageOf(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	writeKiB(t, filepath.Join(outside, "large"), 8<<10)
	writeKiB(t, filepath.Join(dir, "a", "b", "file"), 1<<10)
	writeKiB(t, filepath.Join(dir, "hidden", "file"), 2<<10)
	for from, to := range map[string]string{outside: "link", filepath.Join(outside, "large"): "file-link", ".": "loop"} {
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"1", "2", "3"} {
		if err := os.Link(filepath.Join(dir, "a", "b", "file"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	sparse := filepath.Join(dir, "sparse")
	writeKiB(t, sparse, 0)
	if err := os.Truncate(sparse, 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "hidden"), 0); err != nil {
		t.Fatal(err)
	}
	usage, err := usageOf(t.Context(), dir)
	if err != nil || usage < 3<<20 || usage > 3<<20+64<<10 {
		t.Errorf("got %d KiB, %v; want 3 MiB and some folders", usage>>10, err)
	}
	if usage, err := usageOf(t.Context(), filepath.Join(dir, "absent")); usage != 0 || err != nil {
		t.Errorf("a folder that does not exist: %d, %v", usage, err)
	}
	if _, err := usageOf(t.Context(), filepath.Join(dir, "link")); err == nil {
		t.Error("a link was followed")
	}
}

// TestUsageIsBounded checks that a Space cannot keep the host busy, and that the host can stop.
func TestUsageIsBounded(t *testing.T) {
	top := t.TempDir()
	dir, err := os.OpenRoot(top)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 { // longer than any path that the kernel takes at once
		name := "a-folder-with-a-long-name"
		if err := dir.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := dir.OpenRoot(name)
		dir.Close()
		if err != nil {
			t.Fatal(err)
		}
		dir = below
	}
	dir.Close()
	if _, err := usageOf(t.Context(), top); !errors.As(err, new(*unmeasurableError)) {
		t.Errorf("got %v, want an unmeasurableError", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := usageOf(over, top); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the error of the context", err)
	}
}
