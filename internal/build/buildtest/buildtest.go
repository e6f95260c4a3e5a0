// Package buildtest makes Python packages and a package index for tests of builds.
//
// Small packages named gradio and spaces take the place of the real ones, so that a test runs the real installers without
// a hundred megabytes of Gradio. Index counts the downloads of each file.
package buildtest

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Wheel writes a package of one module into dir, with the extras that the Hub requires of gradio. code is the module.
func Wheel(dir, name, version, code string) error {
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%s-py3-none-any.whl", name, version)))
	if err != nil {
		return err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	info := fmt.Sprintf("%s-%s.dist-info/", name, version)
	for _, file := range [][2]string{
		{name + "/__init__.py", code},
		{info + "METADATA", fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\nProvides-Extra: oauth\nProvides-Extra: mcp\n", name, version)},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", fmt.Sprintf("%s/__init__.py,,\n%sMETADATA,,\n%sWHEEL,,\n%sRECORD,,\n", name, info, info, info)},
	} {
		w, err := z.Create(file[0])
		if err != nil {
			return err
		}
		if _, err := w.Write([]byte(file[1])); err != nil {
			return err
		}
	}
	return z.Close()
}

// SDK writes the wheels of gradio 99.1.0 and spaces 99.0.0 into dir.
func SDK(dir string) error {
	if err := Wheel(dir, "gradio", "99.1.0", ""); err != nil {
		return err
	}
	return Wheel(dir, "spaces", "99.0.0", "")
}

// Source writes a source archive into dir. setup is its setup.py.
func Source(dir, name, version, setup string) error {
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%s.tar.gz", name, version)))
	if err != nil {
		return err
	}
	defer f.Close()
	compressed := gzip.NewWriter(f)
	archive := tar.NewWriter(compressed)
	for _, file := range [][2]string{{"setup.py", setup}, {name + ".py", ""}, {"PKG-INFO", fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)}} {
		header := &tar.Header{Name: fmt.Sprintf("%s-%s/%s", name, version, file[0]), Mode: 0o644, Size: int64(len(file[1]))}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write([]byte(file[1])); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return compressed.Close()
}

// Index is a package index (PEP 503) with the files of a folder. Its methods may be called by many goroutines.
type Index struct {
	*httptest.Server
	mu        sync.Mutex
	downloads map[string]int
}

// NewIndex starts an index on a loopback address. The caller closes it.
func NewIndex(dir string) *Index {
	index := &Index{downloads: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/{name}/", func(w http.ResponseWriter, r *http.Request) {
		found, _ := filepath.Glob(filepath.Join(dir, r.PathValue("name")+"-*")) // the pattern is well formed
		if len(found) == 0 {
			http.NotFound(w, r)
			return
		}
		var links strings.Builder
		for _, path := range found {
			fmt.Fprintf(&links, `<a href="/files/%[1]s">%[1]s</a>`, filepath.Base(path))
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body>%s</body></html>", &links)
	})
	mux.HandleFunc("GET /files/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if r.Method == http.MethodGet && r.Header.Get("Range") == "" {
			index.mu.Lock()
			index.downloads[name]++
			index.mu.Unlock()
		}
		w.Header().Set("Cache-Control", "max-age=31536000, immutable") // as on PyPI
		http.ServeFile(w, r, filepath.Join(dir, name))
	})
	index.Server = httptest.NewServer(mux)
	return index
}

// Downloads returns how often a file was downloaded. A resolver reads the metadata of a wheel as a part of the file, which
// does not count.
func (i *Index) Downloads(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.downloads[name]
}

// Address returns the URL for installers.
func (i *Index) Address() string { return i.URL + "/simple/" }
