package bundle

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"spacehost/internal/removal"
)

// Pruned is what a Prune has removed.
type Pruned struct {
	Trees, Blobs int
	Bytes        int64 // that the disk has gained: the sizes of files without a further link
}

// Prune removes the trees that are not used, and the blobs that no remaining tree and no Receive under way needs. A tree is used until its
// Release, and while keep contains its digest or, for one writable tree, the last element of its folder. It may be called at any time.
// After an error it has removed what it could.
func (s *Store) Prune(keep []string) (p Pruned, err error) {
	bin := path.Join(incoming, rand.Text())
	if err := s.root.Mkdir(bin, 0o700); err != nil {
		return p, fmt.Errorf("prune bundles: %w", err)
	}
	p, err = s.sweep(keep, bin)
	p.Bytes += s.lastLinks(bin)
	if err = errors.Join(err, removal.Below(s.root, bin)); err != nil {
		return p, fmt.Errorf("prune bundles: %w", err)
	}
	return p, nil
}

// sweep moves everything that goes to bin, where no Receive finds it.
func (s *Store) sweep(keep []string, bin string) (p Pruned, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := map[string]bool{}
	for m := range s.arriving {
		need(needed, m)
	}
	move := func(folder, name string) bool {
		failed := s.root.Rename(path.Join(folder, name), path.Join(bin, strconv.Itoa(p.Trees+p.Blobs)))
		err = errors.Join(err, failed)
		return failed == nil
	}
	kept := map[string]bool{}
	names, listed := s.list(trees)
	err = errors.Join(err, listed)
	for _, name := range names {
		switch digest, _, _ := strings.Cut(name, "."); {
		case s.used[name] > 0 || slices.Contains(keep, name) || slices.Contains(keep, digest):
			kept[name] = true
			s.needTree(needed, name)
		case move(trees, name):
			p.Trees++
		}
	}
	names, listed = s.list(manifests)
	err = errors.Join(err, listed)
	for _, name := range names {
		if !kept[name] {
			err = errors.Join(err, s.root.Remove(path.Join(manifests, name)))
		}
	}
	names, listed = s.list(blobs)
	err = errors.Join(err, listed)
	for _, name := range names {
		if !needed[strings.TrimSuffix(name, ".x")] && move(blobs, name) {
			p.Blobs++
		}
	}
	return p, err
}

func need(needed map[string]bool, m *Manifest) {
	for _, e := range m.Entries {
		if e.HasContent() {
			needed[e.Sum.String()] = true
		}
	}
}

// needTree adds the blobs of a tree. Without its manifest they may go: a tree does not need them, only another tree with the same content.
func (s *Store) needTree(needed map[string]bool, name string) {
	file, err := s.root.Open(path.Join(manifests, name))
	if err != nil {
		return
	}
	defer file.Close()
	if m, err := readManifest(bufio.NewReader(file), Limits{math.MaxInt, math.MaxInt64, math.MaxInt64}); err == nil {
		need(needed, &m)
	}
}

func (s *Store) list(folder string) ([]string, error) {
	dir, err := s.root.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// lastLinks returns the bytes of the files below a folder of which every link is there.
func (s *Store) lastLinks(folder string) (bytes int64) {
	type inode struct{ device, number uint64 }
	links := map[inode]uint64{}
	_ = fs.WalkDir(s.root.FS(), folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry == nil || !entry.Type().IsRegular() {
			return nil // a folder without rights: its files are not counted
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		stat := info.Sys().(*syscall.Stat_t)
		id := inode{stat.Dev, stat.Ino}
		if links[id]++; links[id] == uint64(stat.Nlink) {
			bytes += stat.Size
		}
		return nil
	})
	return bytes
}
