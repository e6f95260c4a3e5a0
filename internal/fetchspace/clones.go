package fetchspace

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
)

// Clone is a Clone on the disk.
type Clone struct {
	Dir    string // the Space's folder
	GitDir string
}

// Clones lists the Clones in the Fetcher's folder. One whose folder the user has deleted is listed too.
func (f *Fetcher) Clones() (all []Clone) {
	root := filepath.Join(f.Dir, repositories)
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || !strings.HasSuffix(path, ".git") {
			return nil // an unreadable folder has none
		}
		relative, _ := filepath.Rel(root, path) // it is below root
		all = append(all, Clone{filepath.Join(f.Dir, strings.TrimSuffix(relative, ".git")), path})
		return fs.SkipDir
	})
	return all
}

// Changed describes what the user has changed in a Clone, as a part of a sentence; "" if there is nothing, or nothing is left of its
// folder. Unlike for an update, files that git does not know count, because a removal would lose them. Those that git ignores and
// the bytecode of Python do not.
func (f *Fetcher) Changed(ctx context.Context, c Clone) string {
	if !exists(c.Dir) {
		return ""
	}
	own := clone{c.Dir, c.GitDir}
	if changed := f.changed(ctx, own); changed != "" {
		return changed
	}
	unknown, err := f.status(ctx, own, "--untracked-files=normal", "--", ".", ":(exclude,glob)**/__pycache__/**")
	if err != nil {
		return "its new files cannot be determined: " + err.Error()
	}
	if unknown != "" {
		return "it has files that git does not know"
	}
	return ""
}

func (f *Fetcher) status(ctx context.Context, c clone, args ...string) (string, error) {
	return f.git(ctx, c, append([]string{"status", "--porcelain", "--ignore-submodules=all"}, args...)...)
}
