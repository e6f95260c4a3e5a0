package sandbox

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveLayer removes a folder that a Space has written, and the work folder of its overlay. A Space may have taken the
// rights to its own folders, and the kernel creates work folders without any.
func RemoveLayer(dir string) error {
	for _, one := range []string{dir, dir + ".work"} {
		if err := removeAll(one); err != nil {
			return fmt.Errorf("remove layer %s: %w", one, err)
		}
	}
	return nil
}

func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// WalkDir visits a folder before it reads it.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // what stays fails below
		}
		return nil
	})
	return os.RemoveAll(dir)
}
