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
	"regexp"
	"strings"
)

const (
	preRequirements = "pre-requirements.txt"
	requirements    = "requirements.txt"
	packages        = "packages.txt"
)

// layout changes when environments are made in another way, so that older ones are not taken for them.
const layout = 1

// maxFile bounds what is read of a file of the Space.
const maxFile = 1 << 20

// inputs is all that decides what an environment contains. Its JSON is hashed into the environment's key,
// so every field that is exported counts.
type inputs struct {
	Layout      int
	Gradio      string            // what will be pinned
	Files       map[string]string // the requirement files and those that they include, by path
	Constraints []byte
	Interpreter interpreter
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
	return in, nil
}

var includes = regexp.MustCompile(`(?m)^\s*(?:-r|-c|--requirement|--constraint)[ =]*(\S+)`)

// read takes in the file and what it includes. A file that is missing is left to the installer to report:
// it may be behind a marker or a URL.
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
			continue // outside of the Space, or a URL: not ours to watch
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
	if !info.Mode().IsRegular() { // reading a pipe would wait for ever
		return "", errors.New("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(text), err
}

// has reports whether there is something to install in the file.
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

var comments = regexp.MustCompile(`(?m)(^|[ \t])#.*$`)

// requirement is one line of a requirements file.
type requirement struct {
	name string // normalized, so that Foo_Bar is foo-bar
	text string // as it was written, without its comment and marker
}

var requirementName = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?`)

func parseRequirements(text string) []requirement {
	var all []requirement
	for line := range strings.Lines(comments.ReplaceAllString(text, "")) {
		line, _, _ = strings.Cut(line, ";")
		line = strings.TrimSpace(line)
		if name := requirementName.FindString(line); name != "" {
			all = append(all, requirement{normal(name), line})
		}
	}
	return all
}

var separators = regexp.MustCompile(`[-_.]+`)

// normal is PEP 503's normalized name.
func normal(name string) string {
	return separators.ReplaceAllString(strings.ToLower(name), "-")
}

var exactly = regexp.MustCompile(`^[^=<>!~]*==\s*([0-9][^\s,*]*)$`)

// pinned returns the version that a requirements file pins name to, empty if it leaves a choice. Without
// sdk_version that is the Gradio that the author tried.
func pinned(text, name string) string {
	for _, r := range parseRequirements(text) {
		if found := exactly.FindStringSubmatch(r.text); found != nil && r.name == name {
			return found[1]
		}
	}
	return ""
}

// packagesWarning names the Debian packages that the Hub would install (spaces-dependencies.md). The host
// runs as a person's own account, so it installs none.
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
	return []string{fmt.Sprintf("packages.txt names Debian packages, which are not installed here: %s; install those that this machine lacks with apt", strings.Join(names, ", "))}
}
