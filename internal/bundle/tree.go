package bundle

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// lay creates the tree of a Manifest after all its blobs have arrived.
func (r *receiver) lay(m *Manifest, digest Sum) (dir string, err error) {
	s, name, draft := r.store, digest.String(), path.Join(r.draft, "tree")
	if r.options.Writable {
		name += "." + rand.Text()
	}
	w := treeWriter{ctx: r.ctx, Store: s, copies: r.options.Writable}
	if err := w.entry(Entry{Kind: Folder}, draft); err != nil {
		return "", err
	}
	if err := w.entries(m, draft); err != nil {
		return "", err
	}
	if err := s.writeManifest(m, path.Join(r.draft, "manifest")); err != nil {
		return "", err
	}
	if err := s.sync(); err != nil {
		return "", err
	}
	return s.publish(r.draft, name)
}

// publish makes a draft the tree. If another Receive was faster, its tree is used.
func (s *Store) publish(draft, name string) (dir string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir, ok := s.use(name); ok {
		return dir, nil
	}
	for _, step := range []struct{ from, to string }{{"manifest", manifests}, {"tree", trees}} {
		if err := s.root.Rename(path.Join(draft, step.from), path.Join(step.to, name)); err != nil {
			return "", err
		}
	}
	dir, ok := s.use(name)
	if !ok {
		err = fs.ErrNotExist
	}
	return dir, err
}

func (s *Store) writeManifest(m *Manifest, name string) error {
	file, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	return errors.Join(m.write(w), w.Flush(), file.Close())
}

// treeWriter creates the content of one tree.
type treeWriter struct {
	*Store
	ctx    context.Context
	copies bool
}

// entries follow their folders, and none lies below a link (checker.add), so no path leads through a link.
func (w treeWriter) entries(m *Manifest, draft string) error {
	for _, e := range m.Entries {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.entry(e, path.Join(draft, e.Path)); err != nil {
			return err
		}
	}
	return nil
}

func (w treeWriter) entry(e Entry, name string) error {
	switch {
	case e.Kind == Folder:
		if err := w.root.Mkdir(name, e.mode()); err != nil {
			return err
		}
		return w.root.Chmod(name, e.mode()) // whatever the umask
	case e.Kind == Link:
		return w.root.Symlink(e.Target, name)
	case w.copies:
		return w.duplicate(e, w.source(e), name)
	}
	if !w.isIntact(e) {
		if err := w.addTwin(e, name); err != nil {
			return err
		}
	}
	if err := w.root.Link(e.blob(), name); err != nil {
		return w.duplicate(e, e.blob(), name) // no links on this file system, or too many of this file
	}
	return nil
}

// source returns the blob of the content, whatever its mode.
func (w treeWriter) source(e Entry) string {
	if w.isIntact(e) {
		return e.blob()
	}
	return e.twin().blob()
}

// addTwin creates a blob from that with the other mode. name is a path that may be used meanwhile.
func (w treeWriter) addTwin(e Entry, name string) error {
	if err := w.duplicate(e, e.twin().blob(), name); err != nil {
		return err
	}
	return w.root.Rename(name, e.blob())
}

// duplicate copies a blob. The kernel shares the blocks if the file system can.
func (w treeWriter) duplicate(e Entry, blob, name string) error {
	from, err := w.root.Open(blob)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	for err == nil {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		_, err = io.CopyN(to, from, 64<<20)
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return w.finish(to, name, e)
}
