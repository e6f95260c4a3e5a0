package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"spacehost/internal/lazyregexp"
)

const (
	preRequirements = "pre-requirements.txt"
	requirements    = "requirements.txt"
	packages        = "packages.txt"
)

// layout is incremented when environments are created in another way, so that older ones are not reused.
const layout = 2

// maxFile limits how much is read of a file of the Space.
const maxFile = 1 << 20

// inputs is everything that decides what an environment contains. The hash of its JSON is the environment's key, so
// every exported field counts.
type inputs struct {
	Layout      int
	Gradio      string            // the version to pin
	Files       map[string]string // the requirement files and their includes, by path
	Constraints []byte
	Interpreter interpreter

	// Name and folder of the Space, if another Space with the same files might get other packages (plain.go).
	Space  string `json:",omitempty"`
	Folder string `json:",omitempty"`

	// installed are the requirement files as they are installed: without the Space's folder. nil: they need that folder.
	installed map[string]string
}

func readInputs(spec Spec) (inputs, error) {
	in := inputs{Layout: layout, Gradio: spec.Gradio, Files: map[string]string{}}
	if spec.Dir != "" {
		for _, name := range []string{preRequirements, requirements} {
			if err := in.read(spec.Dir, name); err != nil {
				return in, err
			}
		}
	}
	if in.Gradio == "" {
		in.Gradio = pinned(in.Files[requirements], "gradio")
	}
	var plain bool
	if in.installed, plain = in.plainFiles(); !plain {
		in.Space, in.Folder = spec.Space, spec.Dir
		in.installed, _ = in.indexedFiles()
	}
	return in, nil
}

var includes = lazyregexp.New(`(?m)^\s*(?:-r|-c|--requirement|--constraint)[ =]*(\S+)`)

// read adds the file and its includes. A missing file is left to the installer to report: it may be behind a marker
// or a URL.
func (in inputs) read(dir, name string) error {
	if _, known := in.Files[name]; known {
		return nil
	}
	text, err := readText(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	in.Files[name] = text
	for _, found := range includes.FindAllStringSubmatch(text, -1) {
		included := filepath.Join(filepath.Dir(name), found[1])
		if !filepath.IsLocal(included) {
			continue // outside of the Space, or a URL: such a file is not plain
		}
		if err := in.read(dir, included); err != nil {
			return err
		}
	}
	return nil
}

func readText(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // reading a pipe would block forever
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(text), err
}

// has reports whether the file contains anything to install.
func (in inputs) has(name string) bool {
	return strings.TrimSpace(comments.ReplaceAllString(in.Files[name], "")) != ""
}

func (in inputs) key() string {
	all, err := json.Marshal(in)
	if err != nil {
		panic(err) // only strings and bytes: cannot fail
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:8])
}

var comments = lazyregexp.New(`(?m)(^|[ \t])#.*$`)

// requirement is one line of a requirements file.
type requirement struct {
	name string // normalized: Foo_Bar is foo-bar
	text string // as written, without comment and marker
}

var requirementName = lazyregexp.New(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?`)

func parseRequirements(text string) []requirement {
	var all []requirement
	for line := range strings.Lines(comments.ReplaceAllString(text, "")) {
		line, _, _ = strings.Cut(line, ";")
		line = strings.TrimSpace(line)
		if name := requirementName.FindString(line); name != "" {
			all = append(all, requirement{normalizeName(name), line})
		}
	}
	return all
}

var separators = lazyregexp.New(`[-_.]+`)

// normalizeName returns PEP 503's normalized name.
func normalizeName(name string) string {
	return separators.ReplaceAllString(strings.ToLower(name), "-")
}

var exactly = lazyregexp.New(`^[^=<>!~]*==\s*([0-9][^\s,*]*)$`)

// pinned returns the version that a requirements file pins name to, or "" if it pins none. Without sdk_version this
// is the Gradio that the author tested.
func pinned(text, name string) string {
	for _, r := range parseRequirements(text) {
		if found := exactly.FindStringSubmatch(r.text); found != nil && r.name == name {
			return found[1]
		}
	}
	return ""
}

// packagesWarning lists the Debian packages that the Hub would install (spaces-dependencies.md). The host runs under
// a normal user account, so it installs none.
func packagesWarning(dir string) []string {
	if dir == "" {
		return nil
	}
	text, err := readText(filepath.Join(dir, packages))
	if err != nil {
		return nil
	}
	names := strings.Fields(comments.ReplaceAllString(text, ""))
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("packages.txt lists Debian packages, which spacehost does not install: %s; install the missing ones with apt", strings.Join(names, ", "))}
}
