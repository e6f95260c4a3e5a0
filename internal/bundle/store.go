package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/removal"
)

// The folders of a Store.
const (
	blobs     = "blobs"     // by hash, and with .x for the executable file of that content
	trees     = "trees"     // by digest, and with a random suffix for a writable one
	manifests = "manifests" // the Manifest of each tree, by its name
	incoming  = "incoming"  // what is not complete yet, or is being removed
)

// Store keeps bundles on a node. One process uses a folder at a time. It is safe for concurrent use. Close it after the last Receive
// and Prune.
type Store struct {
	dir  string
	root *os.Root // all paths of the Store are opened below it
	disk *os.File // the folder itself, for syncfs

	mu       sync.Mutex
	used     map[string]int // how often each tree was received and not released
	arriving map[*Manifest]bool
}

// OpenStore creates the folder if it is missing, and removes what a crash has left incomplete.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store of bundles: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open store of bundles: %w", err)
	}
	s := &Store{dir: dir, root: root, used: map[string]int{}, arriving: map[*Manifest]bool{}}
	err = removal.Below(root, incoming)
	for _, folder := range []string{blobs, trees, manifests, incoming} {
		err = errors.Join(err, root.MkdirAll(folder, 0o700))
	}
	if err == nil {
		s.disk, err = root.Open(".")
	}
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("open store of bundles %s: %w", dir, err)
	}
	return s, nil
}

// Close releases the folder. It removes nothing.
func (s *Store) Close() error { return errors.Join(s.disk.Close(), s.root.Close()) }

// Has returns the folder of a tree that is only read, as Receive returns it. Until Release is called for it, Prune keeps it.
func (s *Store) Has(digest Sum) (dir string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.use(digest.String())
}

// Release states that one caller of Receive or Has does not use the folder any more.
func (s *Store) Release(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := filepath.Base(dir)
	if s.used[name]--; s.used[name] <= 0 {
		delete(s.used, name)
	}
}

// use counts a tree as used, if it exists. The caller holds mu.
func (s *Store) use(tree string) (dir string, ok bool) {
	info, err := s.root.Lstat(path.Join(trees, tree))
	if err != nil || !info.IsDir() {
		return "", false
	}
	s.used[tree]++
	return filepath.Join(s.dir, trees, tree), true
}

// expect keeps the blobs of a Manifest from Prune until the returned function is called.
func (s *Store) expect(m *Manifest) (arrived func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arriving[m] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.arriving, m)
	}
}

// lacks returns the positions of the contents that the Store lacks, each content once, and the sum of their sizes.
func (s *Store) lacks(m *Manifest) (wants []int, bytes int64) {
	seen := map[Sum]bool{}
	for i, e := range m.Entries {
		if !e.HasContent() || seen[e.Sum] {
			continue
		}
		seen[e.Sum] = true
		if !s.isIntact(e) && !s.isIntact(e.twin()) {
			wants = append(wants, i)
			bytes += e.Size
		}
	}
	return wants, bytes
}

// checkSpace refuses a bundle that does not fit on the disk.
func (s *Store) checkSpace(need int64) error {
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(s.disk.Fd()), &disk); err != nil {
		return nil // a write will fail
	}
	if free := int64(disk.Bavail) * disk.Bsize; need > free {
		return &SpaceError{s.dir, need, free}
	}
	return nil
}

// twin is the entry of the same content with the other right to execute it. One inode cannot have both modes.
func (e Entry) twin() Entry {
	if e.Kind == File {
		e.Kind = Program
	} else {
		e.Kind = File
	}
	return e
}

func (e Entry) blob() string {
	if e.Kind == Program {
		return path.Join(blobs, e.Sum.String()+".x")
	}
	return path.Join(blobs, e.Sum.String())
}

func (e Entry) mode() fs.FileMode {
	if e.Kind == File {
		return 0o644
	}
	return 0o755
}

// modified is the time of the last change that a content gets (see the package comment): a second between 2001 and 2022.
func (s Sum) modified() time.Time {
	seconds := int64(s[0])<<24 | int64(s[1])<<16 | int64(s[2])<<8 | int64(s[3])
	return time.Unix(1_000_000_000+seconds%(650_000_000), 0)
}

// isIntact reports whether the Store has the blob as it was written. Another size or time is that of a file to which a Space has written
// through a hard link, or of a disk that lost its last writes.
func (s *Store) isIntact(e Entry) bool {
	info, err := s.root.Lstat(e.blob())
	return err == nil && info.Mode() == e.mode() && info.Size() == e.Size && info.ModTime().Equal(e.Sum.modified())
}

// sync writes everything to the disk, so that a rename after it is never on the disk without the content.
func (s *Store) sync() error {
	if err := unix.Syncfs(int(s.disk.Fd())); err != nil {
		return fmt.Errorf("sync store of bundles: %w", err)
	}
	return nil
}

// finish gives a written file the mode and the time of its entry, and closes it.
func (s *Store) finish(file *os.File, name string, e Entry) error {
	err := file.Chmod(e.mode())
	if err == nil {
		err = file.Close()
	} else {
		file.Close()
	}
	if err == nil {
		err = s.root.Chtimes(name, e.Sum.modified(), e.Sum.modified())
	}
	return err
}
