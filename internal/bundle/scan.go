package bundle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"spacehost/internal/space"
)

// Scan reads the Space's folder and returns its Manifest. Only files that differ from cache are read; a nil cache reads all. Its
// duration grows with their size, until ctx ends. It may be called concurrently, also with one Cache.
//
// Left out are what tools derive from the source (space.IsDerived), virtual environments, which contain paths of this machine, the file .env,
// because the secrets in it reach a Space at its start, and what Gradio has written for visitors. Sockets, pipes and devices are left out with a note.
//
// Errors: *EntryError for a link out of the folder or an impossible name, *LimitError above the defaults of Limits, *ChangedError, and
// errors of the disk.
func Scan(ctx context.Context, dir string, cache *Cache) (Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, fmt.Errorf("open the Space's folder: %w", err)
	}
	defer root.Close()
	s := scanner{ctx: ctx, root: root, check: newChecker(Limits{}), sums: cache.begin(), buffer: make([]byte, chunkSize)}
	if err := fs.WalkDir(root.FS(), ".", s.visit); err != nil {
		return Manifest{}, fmt.Errorf("scan %s for a bundle: %w", dir, err)
	}
	cache.end(s.sums)
	return s.manifest, nil
}

// scanner is one Scan.
type scanner struct {
	ctx      context.Context
	root     *os.Root
	check    *checker
	sums     *sums
	buffer   []byte
	manifest Manifest
}

// visit adds an entry. It is called in the order of comparePaths.
func (s *scanner) visit(name string, entry fs.DirEntry, err error) error {
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case name == ".":
		return err
	case entry != nil && s.isLeftOut(name, entry):
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil // removed since its folder was read
	case errors.Is(err, fs.ErrInvalid):
		return cmp.Or(checkPath(name), err)
	case err != nil:
		return err
	}
	e, isEntry, err := s.entry(name, entry)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isEntry {
		return nil
	}
	if err == nil {
		err = s.check.add(e)
	}
	s.manifest.Entries = append(s.manifest.Entries, e)
	return err
}

// isLeftOut reports what no bundle contains. It notes what a user might miss.
func (s *scanner) isLeftOut(name string, entry fs.DirEntry) bool {
	switch name {
	case ".env":
		s.note(name, "it contains secrets; set them with secrets or env_file in the configuration")
		return true
	case ".gradio/flagged", ".gradio/certificate.pem":
		return true
	}
	if entry.IsDir() {
		_, err := s.root.Lstat(path.Join(name, "pyvenv.cfg"))
		return err == nil || space.IsDerived(entry.Name())
	}
	isDerived := space.IsDerived(entry.Name())
	if isDerived && strings.HasSuffix(name, ".pyc") { // one beside the source may be there without the source
		s.note(name, "compiled modules are made anew on each machine; add its source to the Space")
	}
	return isDerived
}

func (s *scanner) note(name, reason string) {
	const most = 100
	switch len(s.manifest.Notes) {
	case most:
		s.manifest.Notes = append(s.manifest.Notes, "further files were left out")
	case most + 1:
	default:
		s.manifest.Notes = append(s.manifest.Notes, fmt.Sprintf("%.300q is left out: %s", name, reason))
	}
}

func (s *scanner) entry(name string, entry fs.DirEntry) (e Entry, isEntry bool, err error) {
	e.Path = name
	switch kind := entry.Type(); {
	case kind.IsDir():
		e.Kind = Folder
	case kind == fs.ModeSymlink:
		e.Kind = Link
		e.Target, err = s.root.Readlink(name)
	case kind.IsRegular():
		err = s.file(&e)
	default:
		s.note(name, "it is a socket, a pipe or a device")
		return e, false, nil
	}
	return e, true, err
}

// file completes the entry of a file, with the cached hash if the file is the same. A file that changes meanwhile is read once more.
func (s *scanner) file(e *Entry) error {
	info, err := s.root.Lstat(e.Path)
	if err != nil {
		return err
	}
	sum, known := s.sums.find(e.Path, info)
	for try := 0; !known; try++ {
		if try == 2 {
			return &ChangedError{e.Path}
		}
		if sum, info, known, err = s.hash(e.Path); err != nil {
			return err
		}
		if known {
			s.sums.add(e.Path, info, sum)
		}
	}
	e.Kind, e.Size, e.Sum = File, info.Size(), sum
	if info.Mode()&0o100 != 0 {
		e.Kind = Program
	}
	return nil
}

// hash reads a file. same reports that it was the same at the beginning and the end.
func (s *scanner) hash(name string) (sum Sum, after fs.FileInfo, same bool, err error) {
	file, before, err := openFile(s.root, name)
	if err != nil {
		return sum, nil, false, err
	}
	defer file.Close()
	hash := sha256.New()
	read, err := io.CopyBuffer(hash, contextReader{s.ctx, file}, s.buffer)
	if err == nil {
		after, err = file.Stat()
	}
	if err != nil {
		return sum, nil, false, fmt.Errorf("read %s: %w", name, err)
	}
	return Sum(hash.Sum(nil)), after, identify(before) == identify(after) && read == after.Size(), nil
}

// openFile opens a regular file below root. What has taken its place, such as a link to a file that no bundle contains, is not opened or
// not used, and a pipe is not waited for. os.Root follows links also with O_NOFOLLOW, hence the comparison.
func openFile(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	expected, err := root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !expected.Mode().IsRegular() {
		return nil, nil, &ChangedError{name}
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !os.SameFile(expected, info) {
		err = &ChangedError{name}
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// contextReader ends a long copy when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
