package removal

import (
	"os"
	"path/filepath"
	"testing"
)

// TestTree removes folders without rights, which need the second try unless root runs the test, and leaves the target of
// a link alone.
func TestTree(t *testing.T) {
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
		if err := Tree(dir); err != nil {
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
