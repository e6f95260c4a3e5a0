package buildtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Cache returns the folder that tests keep between runs: $SPACEHOST_TEST_CACHE, or one in the user's cache folder. It exists.
func Cache() (string, error) {
	dir := os.Getenv("SPACEHOST_TEST_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder: set SPACEHOST_TEST_CACHE: %w", err)
		}
		dir = filepath.Join(base, "spacehost-test")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// LookAtSources reads every folder of the module at root. `go test` repeats an old result ("cached") until a file or folder
// changes that the test has read, and it does not track the files that other programs read.
func LookAtSources(root string) error {
	return filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && slices.Contains([]string{".git", "dist"}, entry.Name()) {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
			return nil
		}
		return err
	})
}
