// Package measures computes style figures of a source tree and compares them with limits.
//
// It defines three measures:
//
//   - The length of a function is the number of lines from its func keyword to its closing brace. Only declared
//     functions of Go files outside of tests count.
//   - The length of a file is its number of lines. Go, Python and JavaScript files count, tests included.
//   - The pronoun rate is the number of pronouns for unnamed persons (pronouns.txt) per 1,000 words. It is computed for string
//     literals, comments and documentation. A word is a run of text without spaces that contains a letter.
//
// [Measure] reads a tree and returns a [Report]. [Report.Problems] lists the limits that the tree exceeds, and
// [Report.Print] writes the tables. The command internal/measures/measure prints them for this repository.
//
// Text of other systems is exempt through allow.txt, which names the file, the exact text and the reason.
package measures

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Limits of a tree. A higher figure is a problem.
const (
	LimitP90  = 25  // lines of the 90th percentile of functions
	LimitP99  = 50  // lines of the 99th percentile of functions
	LimitFile = 500 // lines of one file
	LimitRate = 1.5 // pronouns per 1,000 words of a group
)

// Func is one declared function and its length.
type Func struct {
	Path  string
	Line  int
	Name  string
	Lines int
}

// File is one source file and its length.
type File struct {
	Path  string
	Lines int
}

// Report contains the figures of a tree.
type Report struct {
	Funcs  []Func
	Files  []File
	Counts map[Place]Count // words and pronouns of each kind of text in each directory
	Hits   []Hit           // pronouns outside of the allowlist
	Unused []Allowed       // allowlist entries without a match
}

// Place is one kind of text in one directory.
type Place struct {
	Dir  string
	Kind Kind
}

// Measure reads the files below root and returns their figures. With dirs, only files below these directories,
// given relative to root, count.
func Measure(root string, dirs ...string) (*Report, error) {
	allow, err := parseAllowlist(allowText)
	if err != nil {
		return nil, err
	}
	return measure(root, allow, dirs)
}

func measure(root string, allow []*Allowed, dirs []string) (*Report, error) {
	r := &Report{Counts: map[Place]Count{}}
	err := filepath.WalkDir(root, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, full)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case entry.IsDir() && skipped(name):
			return filepath.SkipDir
		case !entry.Type().IsRegular() || !below(name, dirs):
			return nil
		}
		return r.add(full, name, allow)
	})
	for _, a := range allow {
		if a.used == 0 {
			r.Unused = append(r.Unused, *a)
		}
	}
	return r, err
}

// skipped reports whether a directory contains no text of this repository.
func skipped(dir string) bool {
	base := path.Base(dir)
	switch base {
	case ".", ".ci":
		return false
	case "vendor", "node_modules", "__pycache__", "dist", "venv":
		return true
	}
	return strings.HasPrefix(base, ".")
}

func below(name string, dirs []string) bool {
	for _, dir := range dirs {
		dir = path.Clean(filepath.ToSlash(dir))
		if dir == "." || name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return len(dirs) == 0
}

// add adds the figures of one file.
func (r *Report) add(full, name string, allow []*Allowed) error {
	read := scanner(name)
	if read == nil {
		return nil
	}
	content, err := os.ReadFile(full)
	if err != nil {
		return fmt.Errorf("read a source file: %w", err)
	}
	text := string(content)
	switch path.Ext(name) {
	case ".go", ".py", ".js", ".mjs":
		r.Files = append(r.Files, File{Path: name, Lines: lineCount(text)})
	}
	spans, funcs, err := read(name, text)
	if err != nil {
		return fmt.Errorf("scan %s: %w", name, err)
	}
	r.Funcs = append(r.Funcs, funcs...)
	for _, s := range spans {
		r.count(name, s, allow)
	}
	return nil
}

// lineCount returns the number of lines. A last line without a line feed counts.
func lineCount(text string) int {
	n := strings.Count(text, "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		n++
	}
	return n
}

// isTest reports whether a file belongs to tests.
func isTest(name string) bool {
	return strings.HasSuffix(name, "_test.go") || strings.Contains("/"+name, "/testdata/")
}

// Root returns the nearest parent of dir that contains go.mod.
func Root(dir string) (string, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find go.mod in %s or its parents: no such file; run the command inside the repository", dir)
		}
		at = filepath.Dir(at)
	}
}
