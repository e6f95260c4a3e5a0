// Package removal removes folders whose content belongs to code of a Space.
//
// # Failure handling
//
// Such code may have taken the rights to its own folders, and the kernel creates work folders of overlays without any. Tree
// gives the host's user the rights to folders that cannot be read, and tries once more.
package removal

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Tree removes a folder and everything below it, and follows no link. A folder that does not exist is no error. It may be
// called concurrently for different folders.
func Tree(dir string) error {
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
