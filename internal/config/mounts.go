package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mount is a file or folder of the machine that a Space sees at the same path.
type Mount struct {
	Path  string // absolute and clean
	Write bool   // the Space may change it
}

// String returns the notation of --mount.
func (m Mount) String() string {
	if m.Write {
		return m.Path + ":rw"
	}
	return m.Path
}

// ParseMount parses PATH, PATH:ro or PATH:rw. PATH must be absolute. CheckMount checks its target.
func ParseMount(text string) (Mount, error) {
	path, write := strings.CutSuffix(text, ":rw")
	if !write {
		path = strings.TrimSuffix(path, ":ro")
	}
	if !filepath.IsAbs(path) {
		return Mount{}, fmt.Errorf("%.200q is not an absolute path; give one such as /srv/models or /srv/out:rw", text)
	}
	return Mount{filepath.Clean(path), write}, nil
}

// Data is the folder of a Space at /data, which keeps its content over restarts.
type Data struct {
	Keep bool   // the Space has such a folder
	Path string // absolute; empty: a folder of the Space in the state folder
}

// ParseData parses true, false or the path of a folder. A relative path is relative to base.
func ParseData(text, base string) (Data, error) {
	switch {
	case text == "true", text == "false":
		return Data{Keep: text == "true"}, nil
	case strings.TrimSpace(text) == "":
		return Data{}, errors.New("is empty; give true, or the path of a folder")
	case !filepath.IsAbs(text):
		text = filepath.Join(base, text)
	}
	return Data{true, filepath.Clean(text)}, nil
}

// systemFolders must not be mounted: the kernel's and the system's interfaces lead out of the Space.
var systemFolders = []string{"/proc", "/sys", "/dev", "/run", "/var/run"}

// CheckMount refuses a path that is missing, that leads out of the Space, or that shows keys of the host. Symbolic links
// are followed. warning is not empty for a path that is allowed and shows more than an operator may expect. state is the
// state folder.
func CheckMount(path, state string) (warning string, err error) {
	if err := checkSystem(path, path); err != nil { // first, because links in /proc cannot be followed
		return "", err
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("cannot mount %s: %w; create it, or correct the path", path, WithoutPath(err))
	}
	if err := checkSystem(path, target); err != nil {
		return "", err
	}
	if folder := resolve(state); isWithin(target, folder) || isWithin(folder, target) {
		return "", fmt.Errorf("%s contains files of the state folder %s, such as its keys and its database; mount another folder, or move the state folder", path, state)
	}
	home, err := os.UserHomeDir()
	switch {
	case err != nil: // no home folder has files to protect
	case isWithin(target, resolve(filepath.Join(home, ".ssh"))):
		return "", fmt.Errorf("%s holds the SSH keys of this user; mount another folder", path)
	case isWithin(resolve(home), target):
		return fmt.Sprintf("%s contains the home folder %s with its keys and tokens; name the folders that the Space needs", path, home), nil
	}
	return "", nil
}

// CheckSpaceFolder refuses the folder of an isolated Space that contains the state folder: the Space would read the host's keys
// as a part of its own folder. warning is not empty for a folder that shows more than its owner may expect. Symbolic links are
// followed.
func CheckSpaceFolder(path, state string) (warning string, err error) {
	target := resolve(path)
	if isWithin(resolve(state), target) {
		return "", fmt.Errorf("the Space's folder %s contains the state folder %s, so the Space would read the host's keys and database; choose a state folder outside of it with --state", path, state)
	}
	if home, err := os.UserHomeDir(); err == nil && isWithin(resolve(home), target) {
		return fmt.Sprintf("the Space's folder %s contains the home folder %s, so the Space reads its keys and tokens; move the app to a folder of its own", path, home), nil
	}
	return "", nil
}

// checkSystem refuses a target that is the root folder or in one of systemFolders. path is the mount in the user's words.
func checkSystem(path, target string) error {
	if target == "/" {
		return fmt.Errorf("%s is the whole file system; name the folders that the Space needs", path)
	}
	for _, folder := range systemFolders {
		if isWithin(target, folder) {
			return fmt.Errorf("%s is in %s, which leads out of the Space; remove this mount", path, folder)
		}
	}
	return nil
}

// resolve follows symbolic links as far as the path exists.
func resolve(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err == nil {
		return target
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(resolve(parent), filepath.Base(path))
	}
	return path
}

// isWithin reports whether path is folder or in it.
func isWithin(path, folder string) bool {
	if path == folder {
		return true
	}
	relative, err := filepath.Rel(folder, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}
