package bundle

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Cache keeps the hashes of the files of one folder, so that a second Scan reads only what has changed. Its zero value is empty. It is
// safe for concurrent use.
type Cache struct {
	mu     sync.Mutex
	hashes map[string]hashed
}

// hashed is a file as it was when it was read. Its fields are exported for gob.
type hashed struct {
	ID  identity
	Sum Sum
}

// identity differs between two contents of a file: a write changes the times, also if it keeps the size. The time of the last change of
// the inode cannot be set by a program. Both times are in nanoseconds.
type identity struct {
	Device, Inode     uint64
	Size              int64
	Modified, Changed int64
}

func identify(info fs.FileInfo) identity {
	stat := info.Sys().(*syscall.Stat_t)
	return identity{stat.Dev, stat.Ino, stat.Size, stat.Mtim.Nano(), stat.Ctim.Nano()}
}

// LoadCache reads what Save has written. A missing or damaged file is an empty Cache: the next Scan reads all.
func LoadCache(path string) *Cache {
	c := &Cache{}
	file, err := os.Open(path)
	if err != nil {
		return c
	}
	defer file.Close()
	if gob.NewDecoder(file).Decode(&c.hashes) != nil {
		c.hashes = nil
	}
	return c
}

// Save writes the Cache to a file, replacing it at once. The folder of the file must exist.
func (c *Cache) Save(path string) error {
	c.mu.Lock()
	hashes := c.hashes // never changed, only replaced
	c.mu.Unlock()
	draft, err := os.CreateTemp(filepath.Dir(path), ".cache-*")
	if err != nil {
		return fmt.Errorf("save the hashes of a Space's files: %w", err)
	}
	err = errors.Join(gob.NewEncoder(draft).Encode(hashes), draft.Close())
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		os.Remove(draft.Name())
		return fmt.Errorf("save the hashes of a Space's files: %w", err)
	}
	return nil
}

// settled is the age from which a file counts as unchanged. Two writes within the resolution of the file system's clock leave the same
// times, so the hash of a younger file is not kept.
const settled = 2 * time.Second

// sums are the hashes that one Scan knows and finds.
type sums struct {
	began time.Time
	known map[string]hashed
	found map[string]hashed
}

func (c *Cache) begin() *sums {
	s := &sums{began: time.Now(), found: map[string]hashed{}}
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.known = c.hashes
	}
	return s
}

// end replaces the hashes, so that those of removed files go.
func (c *Cache) end(s *sums) {
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hashes = s.found
	}
}

func (s *sums) find(path string, info fs.FileInfo) (Sum, bool) {
	h, known := s.known[path]
	if !known || h.ID != identify(info) {
		return Sum{}, false
	}
	s.found[path] = h
	return h.Sum, true
}

func (s *sums) add(path string, info fs.FileInfo, sum Sum) {
	id := identify(info)
	if s.began.UnixNano()-max(id.Modified, id.Changed) > int64(settled) {
		s.found[path] = hashed{id, sum}
	}
}
