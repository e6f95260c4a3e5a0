package fetchspace

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
)

// pointer is the beginning of a file of Git LFS that has not been downloaded (git-lfs, docs/spec.md); pointers are shorter than
// maxPointer.
const (
	pointer    = "version https://git-lfs.github.com/spec/v1\n"
	maxPointer = 1024
)

// completeLFS downloads files of Git LFS of which the Clone has pointers only, or describes how to.
func (f *Fetcher) completeLFS(ctx context.Context, c clone) {
	missing := f.pointers(ctx, c)
	if len(missing) == 0 {
		return
	}
	next := "run `git --git-dir " + c.gitDir + " --work-tree " + c.dir + " lfs pull`"
	if _, err := f.git(ctx, c, "lfs", "version"); err != nil {
		next = "install git-lfs, then " + next
	} else if _, err := f.git(ctx, c, "lfs", "pull"); err == nil {
		return
	}
	what, of := "files", "them"
	if len(missing) == 1 {
		what, of = "file", "it"
	}
	f.note("%d %s of Git LFS missing in %s, such as %s: the Space finds pointers instead of %s; %s", len(missing), what, c.dir, missing[0], of, next)
}

// pointers lists the files of the Clone that are pointers of Git LFS.
func (f *Fetcher) pointers(ctx context.Context, c clone) (all []string) {
	names, err := f.git(ctx, c, "ls-files", "-z")
	if err != nil {
		return nil
	}
	for name := range strings.SplitSeq(names, "\x00") {
		path := filepath.Join(c.dir, filepath.FromSlash(name))
		info, err := os.Lstat(path)
		if name == "" || err != nil || !info.Mode().IsRegular() || info.Size() > maxPointer {
			continue
		}
		if text, err := os.ReadFile(path); err == nil && bytes.HasPrefix(text, []byte(pointer)) {
			all = append(all, name)
		}
	}
	return all
}
