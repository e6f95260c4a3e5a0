package space

import "strings"

// IsDerived reports whether name, the last element of a path in a Space's folder, is that of a file or folder which git or Python
// creates beside the source, and which differs from machine to machine. It is safe for concurrent use.
func IsDerived(name string) bool {
	switch name {
	case ".git", "__pycache__", ".venv":
		return true
	}
	return strings.HasSuffix(name, ".pyc")
}
