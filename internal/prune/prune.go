// Package prune removes from a state folder what no Space refers to any more.
//
// # Terms
//
//   - Item: one thing that is removed as a whole: an environment, the folder of a Space, old uploads, a log, a clone.
//   - Known Space: a Space of the running host, or of the configuration that the state folder was served with last.
//   - Last use: the newest time that the files of an Item show.
//
// # Rules
//
// An Item is removed if no known Space refers to it and its last use is longer ago than Config.Keep.
//
//   - An environment also stays while any process on this machine uses it, or a file of another state folder refers to it
//     (package build, Prune).
//   - The folder of a Space contains its home and its uploads. Its persistent storage (/data) stays unless Config.Data is set.
//   - Uploads of a known Space are removed only while no host runs: a running Space may serve any of them.
//     Only folders with names of Gradio's cache are removed. A link in the path of the uploads is an error: a Space can make one.
//   - A clone with changes or new files of its user stays, as an Item with Kept.
//
// # Concurrency
//
// Either the caller holds the lock of the state folder, or it is the host and sets Config.Locked. Sizes are measured and files are
// removed outside of Locked. Inside it a folder is checked once more and renamed, so the lock is held for a moment only.
//
// # Failures
//
// An Item that cannot be removed has an Err, and the others are still removed. The next run removes what a killed one has renamed.
package prune

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/removal"
)

// Kind is the kind of an Item.
type Kind string

// The kinds of Items.
const (
	Environment Kind = "environment"
	SpaceFolder Kind = "space"
	Uploads     Kind = "uploads"
	Log         Kind = "log"
	Clone       Kind = "clone"
)

// Item is one thing that was removed, or would be.
type Item struct {
	Kind     Kind
	Path     string
	Bytes    int64     // on the disk
	LastUsed time.Time // the zero time: not known
	Why      string    // nothing refers to it
	Err      error     // why it is not removed
	Kept     bool      // it stays because of Why, although no Space refers to it
}

// Config describes what may be removed. State, Environments, Now and Usage are required.
type Config struct {
	State        string   // the state folder
	Environments string   // the folder of environments (build.Config.Dir)
	Spaces       []string // names of the known Spaces
	Folders      []string // their folders
	Running      bool     // a host serves them
	// Locked calls do with the known Spaces and their folders, and adds no Space meanwhile. nil: Spaces and Folders hold throughout.
	Locked func(do func(spaces, folders []string))

	Keep   time.Duration // what was used within this time stays; 0: nothing
	Now    time.Time     // wall clock
	DryRun bool          // remove nothing
	Data   bool          // remove the persistent storage of Spaces that are not known, too

	// Usage returns the bytes that a folder takes on the disk.
	Usage func(ctx context.Context, dir string) (int64, error)
}

// run is one run.
type run struct {
	Config
	items []Item
	gone  []string // folders of Spaces that are removed
}

// Run removes the Items and returns them. It stops when ctx ends, with the Items until then.
func Run(ctx context.Context, c Config) ([]Item, error) {
	r := &run{Config: c}
	for _, step := range []func(context.Context) error{r.spaces, r.uploads, r.logs, r.clones, r.environments} {
		if err := ctx.Err(); err != nil {
			return r.items, context.Cause(ctx)
		}
		if err := step(ctx); err != nil {
			return r.items, err
		}
	}
	return r.items, nil
}

// locked calls do while no Space is added and Spaces and Folders are up to date.
func (r *run) locked(do func()) {
	if r.Locked == nil {
		do()
		return
	}
	r.Locked(func(spaces, folders []string) {
		r.Spaces, r.Folders = spaces, folders
		do()
	})
}

func (r *run) isKnown(name string) bool { return slices.Contains(r.Spaces, name) }

func (r *run) isOld(lastUsed time.Time) bool { return r.Keep == 0 || r.Now.Sub(lastUsed) >= r.Keep }

// asidePrefix begins the names of what is about to be removed. No Space and no clone has such a name.
const asidePrefix = ".prune-"

func asideOf(path string) string {
	return filepath.Join(filepath.Dir(path), asidePrefix+strings.TrimPrefix(filepath.Base(path), asidePrefix))
}

// remove measures and removes the paths of one Item, unless isUsed reports that a Space was added since. It returns the error
// with which ctx ends.
func (r *run) remove(ctx context.Context, item Item, isUsed func() bool, paths ...string) error {
	for _, path := range paths {
		bytes, err := r.usage(ctx, path)
		item.Bytes += bytes
		if err != nil && item.Err == nil {
			item.Err = err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if item.Err == nil && !r.DryRun {
		for _, path := range paths { // what a killed run has left
			_ = removal.Tree(asideOf(path)) // what stays fails below
		}
		used, aside, err := r.putAside(ctx, isUsed, paths)
		for _, path := range aside {
			err = errors.Join(err, removal.Tree(path))
		}
		if used {
			return nil
		}
		item.Err = err
	}
	r.items = append(r.items, item)
	return nil
}

// putAside renames paths, which takes no time, unless a Space uses them by now or ctx has ended.
func (r *run) putAside(ctx context.Context, isUsed func() bool, paths []string) (used bool, aside []string, err error) {
	r.locked(func() {
		if used = ctx.Err() != nil || isUsed(); used {
			return
		}
		for _, path := range paths {
			if failed := os.Rename(path, asideOf(path)); failed == nil {
				aside = append(aside, asideOf(path))
			} else if !errors.Is(failed, os.ErrNotExist) {
				err = failed
				return
			}
		}
	})
	return used, aside, err
}

// usage measures a file or a folder.
func (r *run) usage(ctx context.Context, path string) (int64, error) {
	info, err := os.Lstat(path)
	if err != nil || info.IsDir() {
		return r.Usage(ctx, path)
	}
	return blocks(info), nil
}

// spaces removes the folders of Spaces that are not known.
func (r *run) spaces(ctx context.Context) error {
	for _, name := range namesIn(filepath.Join(r.State, "spaces")) {
		folder := filepath.Join(r.State, "spaces", name)
		lastUsed := newest(folder, filepath.Join(folder, "home"), filepath.Join(folder, "home", "gradio"), filepath.Join(r.State, "logs", "run-"+name+".log"))
		if r.isKnown(name) || !r.isOld(lastUsed) {
			continue
		}
		item := Item{Kind: SpaceFolder, Path: folder, LastUsed: lastUsed, Why: "no Space of this state folder has this name"}
		paths := []string{folder}
		if data := filepath.Join(folder, "data"); !r.Data && len(namesIn(data)) > 0 {
			paths = nil
			for _, entry := range namesIn(folder) {
				if entry != "data" {
					paths = append(paths, filepath.Join(folder, entry))
				}
			}
			if len(paths) == 0 {
				continue
			}
			item.Why += "; its persistent storage stays without --data"
		}
		if err := r.remove(ctx, item, func() bool { return r.isKnown(name) }, paths...); err != nil {
			return err
		}
		r.gone = append(r.gone, folder)
	}
	return nil
}

// environments removes environments after the folders of Spaces, which contain references to them. Package build locks their keys and
// uses against Spaces that are added meanwhile.
func (r *run) environments(ctx context.Context) error {
	r.locked(func() {
		r.gone = slices.DeleteFunc(r.gone, func(folder string) bool { return r.isKnown(filepath.Base(folder)) })
	})
	all, err := build.Prune{
		Dir: r.Environments, Keep: r.Keep, DryRun: r.DryRun, Usage: r.Usage,
		Ignored: func(reference string) bool { return slices.Contains(r.gone, filepath.Dir(reference)) },
	}.Run(ctx)
	for _, one := range all {
		r.items = append(r.items, Item{Kind: Environment, Path: one.Dir, Bytes: one.Bytes, LastUsed: one.LastUsed, Why: one.Why, Err: one.Err})
	}
	return err
}
