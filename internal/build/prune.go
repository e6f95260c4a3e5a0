package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Prune finds environments that nothing uses and nothing refers to.
type Prune struct {
	Dir    string        // Config.Dir
	Keep   time.Duration // environments that were used within this time stay; 0: none of them
	DryRun bool          // remove nothing
	// Ignored reports that a file of Config.Reference is removed too, so that its reference does not count. nil: all count.
	Ignored func(reference string) bool
	// Usage returns the bytes that a folder takes on the disk.
	Usage func(ctx context.Context, dir string) (int64, error)
}

// Pruned is an environment that Prune has removed, or would remove.
type Pruned struct {
	Dir      string
	Bytes    int64
	LastUsed time.Time // the zero time: not known
	Why      string
	Err      error // it could not be removed, or not as a whole
}

// Run removes the environments. Hosts may build and use others meanwhile; it removes none that a Builder uses, or that is being
// built. It stops when ctx ends. Errors of one environment are in its Pruned.
func (p Prune) Run(ctx context.Context) (all []Pruned, err error) {
	folder, err := filepath.Abs(filepath.Join(p.Dir, "environments"))
	if err != nil {
		return nil, err
	}
	keys, err := keysIn(folder)
	for _, key := range keys {
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		all = append(all, p.runKey(ctx, filepath.Join(folder, key))...)
	}
	return all, err
}

// keysIn lists the keys that have an environment.
func keysIn(folder string) (keys []string, err error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, entry := range entries {
		if key, _, ok := splitGeneration(entry.Name()); ok && entry.IsDir() {
			keys = append(keys, key)
		}
	}
	return slices.Compact(keys), err // ReadDir sorts: generations follow their key
}

// runKey removes generations of one key. It skips a key that is being built.
func (p Prune) runKey(ctx context.Context, key string) (all []Pruned) {
	f, err := os.OpenFile(key+lockSuffix, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return []Pruned{{Dir: key, Err: err}}
	}
	l := &lock{f}
	defer l.release()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil
	}
	current, _ := newest(key)
	numbers, _ := generations(key) // the folder was read a moment ago
	for _, number := range numbers {
		home := generation(key, number)
		why, lastUsed := p.judge(home, current)
		if why == "" {
			continue
		}
		if one, unused := p.remove(ctx, home); unused {
			one.Why, one.LastUsed = why, lastUsed
			all = append(all, one)
		}
	}
	return all
}

// judge returns why an environment may be removed if it is not in use; "": it stays.
func (p Prune) judge(home string, current *Environment) (why string, lastUsed time.Time) {
	if info, err := os.Stat(home + useSuffix); err == nil {
		lastUsed = info.ModTime()
	} else if info, err := os.Stat(filepath.Join(home, stampName)); err == nil { // built by a release without the file
		lastUsed = info.ModTime()
	}
	_, finished := readStamp(home)
	switch {
	case !finished:
		return "unfinished, or its Python was removed", lastUsed
	case current != nil && current.Dir != home:
		return "replaced by a rebuild", lastUsed
	case slices.ContainsFunc(references(home), func(file string) bool { return !p.ignored(file) && refersTo(file, home) }):
		return "", lastUsed
	case time.Since(lastUsed) < p.Keep:
		return "", lastUsed
	}
	return "no Space refers to it", lastUsed
}

func (p Prune) ignored(reference string) bool { return p.Ignored != nil && p.Ignored(reference) }

// remove measures and removes an environment. unused is false if it is in use.
func (p Prune) remove(ctx context.Context, home string) (one Pruned, unused bool) {
	one.Dir = home
	u, err := tryUse(home)
	if err != nil {
		one.Err = err
		return one, true
	}
	if u == nil {
		return one, false
	}
	one.Bytes, one.Err = p.Usage(ctx, home)
	u.close()
	if one.Err != nil || p.DryRun {
		return one, true
	}
	removed, err := removeGeneration(home) // the lock of the key keeps new uses away
	if err != nil {
		one.Err = fmt.Errorf("remove %s: %w", home, err)
	}
	return one, removed || err != nil
}
