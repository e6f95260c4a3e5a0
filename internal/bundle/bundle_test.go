package bundle

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write creates files below dir. A name that ends in / is a folder, a content that begins with "-> " a link, and a name that ends in *
// an executable file of the name before it.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path, mode := filepath.Join(dir, strings.TrimSuffix(name, "*")), fs.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			mode = 0o755
		}
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(content, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		case isLink:
			err = errors.Join(err, os.Symlink(target, path))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// read returns the content of a folder in the form of write.
func read(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			files[name+"/"] = ""
		case entry.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(path)
			files[name] = "-> " + target
		default:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if info.Mode()&0o100 != 0 {
				name += "*"
			}
			files[name] = string(content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func scan(t testing.TB, dir string, cache *Cache) Manifest {
	t.Helper()
	m, err := Scan(t.Context(), dir, cache)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// connect returns both ends of a TCP connection, which are closed at the end of the test.
func connect(t testing.TB) (front, node net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if front, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	if node, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return front, node
}

// result is what both ends of a transfer return.
type result struct {
	dir            string
	sent, received error
}

// pass sends a folder to a store. Each end closes its connection, as its callers do.
func pass(t testing.TB, m Manifest, dir string, s *Store, o Options, progress Progress) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	front, node := connect(t)
	sent := make(chan error, 1)
	go func() {
		err := Send(ctx, front, m, dir, progress)
		front.Close()
		sent <- err
	}()
	tree, err := Receive(ctx, node, s, o)
	node.Close()
	return result{tree, <-sent, err}
}

// mustPass is pass without errors.
func mustPass(t testing.TB, m Manifest, dir string, s *Store, o Options) string {
	t.Helper()
	r := pass(t, m, dir, s, o, nil)
	if err := errors.Join(r.sent, r.received); err != nil {
		t.Fatal(err)
	}
	return r.dir
}

func isError[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}
