package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"spacehost/internal/fetchspace"
	"spacehost/internal/lazyregexp"
	"spacehost/internal/removal"
	"spacehost/internal/shelf"
)

// uploads removes old files from the upload folders of known Spaces. No session is open while no host runs, and Gradio copies the
// files of an app's components again at each start (gradio/blocks.py, move_resource_to_block_cache).
func (r *run) uploads(ctx context.Context) error {
	if r.Running {
		return nil
	}
	for _, name := range r.Spaces {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		root, err := os.OpenRoot(filepath.Join(r.State, "spaces", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		item := Item{Kind: Uploads, Path: filepath.Join(r.State, "spaces", name, uploadsFolder), Err: err, Why: "no session is open"}
		count := 0
		if err == nil {
			count = r.uploadsOf(ctx, root, &item)
			root.Close()
		}
		if count > 0 || item.Err != nil {
			item.Why += fmt.Sprintf("; folders: %d", count)
			r.items = append(r.items, item)
		}
	}
	return nil
}

// uploadsFolder is Gradio's cache, below the folder of a Space.
const uploadsFolder = "home/gradio"

// uploadsOf removes old folders of Gradio's cache, one per content, and returns their number. All is done below root, because the
// Space could replace its folders by links to files of others.
func (r *run) uploadsOf(ctx context.Context, root *os.Root, item *Item) (count int) {
	fail := func(err error) {
		if err != nil && item.Err == nil {
			item.Err = err
		}
	}
	for _, part := range []string{path.Dir(uploadsFolder), uploadsFolder} {
		info, err := root.Lstat(part)
		if errors.Is(err, os.ErrNotExist) {
			return 0
		}
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a folder, but a link or a file that the Space may have made; remove it", filepath.Join(root.Name(), part))
		}
		if err != nil {
			fail(err)
			return 0
		}
	}
	entries, err := fs.ReadDir(root.FS(), uploadsFolder)
	fail(err)
	for _, entry := range entries {
		folder := path.Join(uploadsFolder, entry.Name())
		if ctx.Err() != nil || !entry.IsDir() || !shelf.IsCacheFolder(entry.Name()) {
			continue
		}
		lastUsed := newestIn(root, folder)
		if !r.isOld(lastUsed) {
			continue
		}
		bytes, err := r.usageIn(ctx, root, folder)
		if bytes == 0 && err == nil {
			continue // an empty folder of Gradio
		}
		if err == nil && !r.DryRun {
			err = removal.Below(root, folder)
		}
		fail(err)
		count++
		item.Bytes += bytes
		if lastUsed.After(item.LastUsed) {
			item.LastUsed = lastUsed
		}
	}
	return count
}

// usageIn measures a folder below root by its descriptor, so that no link is followed.
func (r *run) usageIn(ctx context.Context, root *os.Root, folder string) (int64, error) {
	f, err := root.Open(folder)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return r.Usage(ctx, fmt.Sprintf("/proc/self/fd/%d/.", f.Fd()))
}

// newestIn is newest for a folder below root.
func newestIn(root *os.Root, folder string) (at time.Time) {
	later(&at, root.Lstat, func(name string) ([]fs.DirEntry, error) { return fs.ReadDir(root.FS(), name) }, folder)
	return at
}

// logName matches the logs of Spaces (package spacelog) and their rotated files, whose names lumberjack gives.
var logName = lazyregexp.New(`^(?:run|build)-(.+?)(?:-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})?\.log(?:\.gz)?$`)

// logs removes the logs of Spaces that are not known. Logs of known Spaces are rotated by package spacelog.
func (r *run) logs(ctx context.Context) error {
	folder := filepath.Join(r.State, "logs")
	for _, name := range namesIn(folder) {
		found := logName.FindStringSubmatch(name)
		path := filepath.Join(folder, name)
		if found == nil || r.isKnown(found[1]) {
			continue
		}
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && r.isOld(info.ModTime()) {
			item := Item{Kind: Log, Path: path, LastUsed: info.ModTime(), Why: "no Space of this state folder has this name"}
			if err := r.remove(ctx, item, func() bool { return r.isKnown(found[1]) }, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// clones removes clones of Spaces of the Hub that no known Space has as its folder.
func (r *run) clones(ctx context.Context) error {
	f := fetchspace.New(filepath.Join(r.State, "clones"), nil)
	for _, clone := range f.Clones() {
		lastUsed := newest(clone.Dir, clone.GitDir, filepath.Join(clone.GitDir, "FETCH_HEAD"))
		isUsed := func() bool {
			return slices.ContainsFunc(r.Folders, func(folder string) bool { return folder == clone.Dir || isBelow(folder, clone.Dir) })
		}
		if isUsed() || !r.isOld(lastUsed) {
			continue
		}
		item := Item{Kind: Clone, Path: clone.Dir, LastUsed: lastUsed, Why: "no Space has this folder, and nothing in it is changed"}
		if changed := f.Changed(ctx, clone); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if changed != "" {
			item.Why, item.Kept = changed, true
			item.Bytes, _ = r.usage(ctx, clone.Dir) // its size is of no effect
			r.items = append(r.items, item)
			continue
		}
		// A killed run leaves the git directory, by which the next one finds the rest.
		if err := r.remove(ctx, item, isUsed, clone.Dir, clone.GitDir); err != nil {
			return err
		}
	}
	return nil
}

func isBelow(path, folder string) bool {
	relative, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(relative)
}

// namesIn lists the names in a folder, none if it cannot be read.
func namesIn(folder string) (names []string) {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// newest returns the newest time of paths and of what is directly in those that are folders.
func newest(paths ...string) (at time.Time) {
	for _, path := range paths {
		later(&at, os.Lstat, os.ReadDir, path)
	}
	return at
}

// later raises at to the newest time of a path and of what is directly in it.
func later(at *time.Time, lstat func(string) (fs.FileInfo, error), read func(string) ([]fs.DirEntry, error), path string) {
	look := func(info fs.FileInfo, err error) {
		if err == nil && info.ModTime().After(*at) {
			*at = info.ModTime()
		}
	}
	look(lstat(path))
	entries, _ := read(path) // a file has none
	for _, entry := range entries {
		look(entry.Info())
	}
}

func blocks(info fs.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Blocks * 512 }
