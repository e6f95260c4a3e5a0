package removal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestTree(t *testing.T) { checkRemoval(t, Tree) }

func TestBelow(t *testing.T) {
	checkRemoval(t, func(dir string) error {
		root, err := os.OpenRoot(filepath.Dir(dir))
		if err != nil {
			return err
		}
		defer root.Close()
		return Below(root, filepath.Base(dir))
	})
}

// TestBelowStaysInRoot: a Space replaces a folder of the path by a link.
func TestBelowStaysInRoot(t *testing.T) {
	dir, kept := t.TempDir(), filepath.Join(t.TempDir(), "own")
	if err := errors.Join(os.Mkdir(kept, 0o700), os.Symlink(filepath.Dir(kept), filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Below(root, "link/own"); err == nil {
		t.Error("a link that leads out of the root is followed")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// checkRemoval removes folders without rights, which need the second try unless root runs the test, and leaves the target of
// a link alone.
func checkRemoval(t *testing.T, remove func(dir string) error) {
	t.Helper()
	dir, kept := filepath.Join(t.TempDir(), "own"), t.TempDir()
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "file"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kept, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{inner, filepath.Dir(inner), dir} {
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time nothing is there
		if err := remove(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder remains: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the target of a link: %v", err)
	}
}
