package host

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spacehost/worker"
)

// watchInterval is the interval of the looks at a Space's folder (`run --watch`). Folders that are mounted into a container
// from macOS or Windows report no events, so events are not used.
const watchInterval = time.Second

// watchedSuffixes are those of files that a Space consists of. What it writes for its visitors does not restart it.
var watchedSuffixes = []string{".py", ".html", ".css", ".js"}

// needNewHost are files that are read at the start of the host only.
var needNewHost = []string{"README.md", "requirements.txt", "pre-requirements.txt", "packages.txt"}

// skippedFolders may contain thousands of files that are not the Space's.
var skippedFolders = []string{"node_modules", "__pycache__", "venv", "env"}

// maxWatched bounds the files of one look.
const maxWatched = 20000

// sourceWatch restarts a Space when its files change.
type sourceWatch struct {
	folder  string
	restart func(changed string) // a path relative to folder
	note    func(text string)
}

// fileState tells a changed file from an unchanged one.
type fileState struct {
	size     int64
	modified time.Time
}

// look returns the watched files by their path relative to the folder. A folder that cannot be read is left out.
func (w sourceWatch) look() map[string]fileState {
	found := map[string]fileState{}
	_ = filepath.WalkDir(w.folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || len(found) >= maxWatched:
			return fs.SkipDir
		case entry.IsDir():
			if path != w.folder && (strings.HasPrefix(entry.Name(), ".") || slices.Contains(skippedFolders, entry.Name())) {
				return fs.SkipDir
			}
		case slices.Contains(watchedSuffixes, filepath.Ext(path)) || filepath.Dir(path) == w.folder && slices.Contains(needNewHost, entry.Name()):
			if info, err := entry.Info(); err == nil {
				relative, _ := filepath.Rel(w.folder, path) // it is below the folder
				found[relative] = fileState{info.Size(), info.ModTime()}
			}
		}
		return nil
	})
	return found
}

// run looks until ctx ends. It acts one look after a change, when no further change has followed: an editor or `git checkout`
// writes several files.
func (w sourceWatch) run(ctx context.Context) {
	again := time.NewTicker(watchInterval)
	defer again.Stop()
	acted := w.look()
	before := acted
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		now := w.look()
		if maps.Equal(now, before) && !maps.Equal(now, acted) {
			w.act(changes(acted, now))
			acted = now
		}
		before = now
	}
}

func (w sourceWatch) act(changed []string) {
	code := slices.DeleteFunc(slices.Clone(changed), func(path string) bool { return slices.Contains(needNewHost, path) })
	if len(code) < len(changed) {
		w.note("its README.md or its requirements have changed. Press Ctrl-C and start spacehost again to apply them.")
	}
	switch {
	case len(code) > 1:
		w.restart(fmt.Sprintf("%s and %d more files", code[0], len(code)-1))
	case len(code) == 1:
		w.restart(code[0])
	}
}

// changes lists the paths that differ, sorted.
func changes(before, now map[string]fileState) []string {
	all := maps.Clone(before)
	maps.Copy(all, now)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(path string) bool {
		b, was := before[path]
		n, is := now[path]
		return was == is && b == n
	})
}

func (s *spaceRun) sourceWatch() sourceWatch {
	return sourceWatch{folder: s.space().Dir, note: s.note, restart: func(changed string) {
		s.note(changed + " changed; the Space restarts.")
		s.supervisor.Restart(worker.Restart{Now: true})
	}}
}
