// Package removal removes folders whose content belongs to code of a Space.
//
// # Failure handling
//
// Such code may have taken the rights to its own folders, and the kernel creates work folders of overlays without any. Tree
// and Below give the host's user the rights to folders that cannot be read, and try once more.
package removal

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Tree removes a folder and everything below it, and follows no link there. The folders above it must be the host's own. A folder
// that does not exist is no error. It may be called concurrently for different folders.
func Tree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, grant(os.Chmod))
	return os.RemoveAll(dir)
}

// Below is Tree for a folder whose path below root belongs to a Space. No link leads out of root, also if the Space changes
// the path meanwhile.
func Below(root *os.Root, name string) error {
	if root.RemoveAll(name) == nil {
		return nil
	}
	_ = fs.WalkDir(root.FS(), name, grant(root.Chmod))
	return root.RemoveAll(name)
}

// grant returns a function for a walk, which visits a folder before it reads it.
func grant(chmod func(path string, mode fs.FileMode) error) fs.WalkDirFunc {
	return func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = chmod(path, 0o700) // what stays fails in the second try
		}
		return nil
	}
}
