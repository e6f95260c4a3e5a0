package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
)

// oldestPython is the minimum for Gradio 6, the spaces package and the host's runner.
var oldestPython = release{3, 10}

// interpreter is a Python on this machine, by its real path. An environment made from a shim, or from python3 of an
// activated environment, would stop working together with it.
type interpreter struct {
	Path    string
	Version string // three parts
}

func (i interpreter) release() release {
	r, _ := parseRelease(i.Version)
	return r
}

// findPython chooses the interpreter for the environment:
//  1. python_version with three parts: that version, else one with another patch release (with a warning).
//  2. python_version with two parts: the first match.
//  3. No python_version: the user's python3 if it is between 3.10 and newest; else the first such interpreter; else
//     any from 3.10 on.
func (j *job) findPython(ctx context.Context, newest release) (interpreter, error) {
	if j.spec.Python == "" {
		return j.anyPython(ctx, newest)
	}
	requested, ok := parseRelease(j.spec.Python)
	if !ok || requested.before(oldestPython) {
		return interpreter{}, &Error{Step: "finding Python", LogPath: j.output.path,
			Problem: fmt.Sprintf("python_version %q is not supported: a Space needs Python 3.10 or newer", j.spec.Python), Hint: "correct it in README.md"}
	}
	var near, seen []interpreter
	for _, path := range candidates(requested) {
		found, ok := j.probe(ctx, path, probeTime)
		if !ok || slices.Contains(seen, found) {
			continue
		}
		seen = append(seen, found)
		if found.Version == j.spec.Python || found.release() == requested && !hasPatch(j.spec.Python) { // 1, 2
			return found, nil
		}
		if found.release() == requested {
			near = append(near, found)
		}
	}
	if len(near) == 0 {
		return interpreter{}, j.noPython(seen)
	}
	j.warnings = append(j.warnings, fmt.Sprintf("python_version requires Python %s; using %s of this machine instead", j.spec.Python, near[0].Version))
	return near[0], nil
}

func hasPatch(version string) bool { return strings.Count(version, ".") == 2 }

// anyPython implements rule 3.
func (j *job) anyPython(ctx context.Context, newest release) (interpreter, error) {
	var seen []interpreter
	for _, path := range candidates(release{}) {
		found, ok := j.probe(ctx, path, probeTime)
		if !ok {
			continue
		}
		old, late := found.release().before(oldestPython), newest != release{} && newest.before(found.release())
		if !old && !late {
			return found, nil
		}
		if !slices.Contains(seen, found) {
			seen = append(seen, found)
		}
	}
	for _, found := range seen {
		if !found.release().before(oldestPython) {
			return found, nil
		}
	}
	return interpreter{}, j.noPython(seen)
}

var (
	pythonCommand = lazyregexp.New(`^python3\.\d+$`)
	// The folders in which common version managers keep interpreters that are not on PATH.
	managed = []string{"$PYENV_ROOT/versions/*/bin/python3", "$HOME/.pyenv/versions/*/bin/python3",
		"$UV_PYTHON_INSTALL_DIR/*/bin/python3", "$XDG_DATA_HOME/uv/python/*/bin/python3", "$HOME/.local/share/uv/python/*/bin/python3"}
)

// candidates lists the paths that may be a Python, the most likely first: for a release its own command, else the
// user's python3.
func candidates(requested release) []string {
	dirs := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(d string) bool { return !filepath.IsAbs(d) })
	var all []string
	if requested != (release{}) {
		all = inDirs(dirs, fmt.Sprintf("python%d.%d", requested.major, requested.minor))
	}
	all = append(all, inDirs(dirs, "python3", "python")...)
	for _, dir := range dirs {
		all = append(all, versionedIn(dir)...)
	}
	return append(all, managedPythons()...)
}

// versionedIn returns the commands like python3.12 in dir.
func versionedIn(dir string) []string {
	var all []string
	entries, _ := os.ReadDir(dir) // PATH may name missing folders
	for _, e := range entries {
		if pythonCommand.MatchString(e.Name()) {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

func managedPythons() []string {
	var all []string
	for _, pattern := range managed {
		if variable, _, _ := strings.Cut(pattern[1:], "/"); os.Getenv(variable) != "" {
			found, _ := filepath.Glob(os.ExpandEnv(pattern))
			all = append(all, found...)
		}
	}
	return all
}

func inDirs(dirs []string, names ...string) []string {
	var all []string
	for _, name := range names {
		for _, dir := range dirs {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil {
				all = append(all, path)
			}
		}
	}
	return all
}

// probeScript always runs with -I: the Space's folder must not be on sys.path, where its queue.py or types.py would
// shadow the standard modules.
const probeScript = `import os, sys
if sys.implementation.name == "cpython":
    print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    print("%d.%d.%d" % sys.version_info[:3])`

// probeTime bounds the start of one interpreter. An interpreter that is skipped because the machine is busy changes the key, so that
// the Space gets another environment: in tests with a load of 25 per CPU, shims of pyenv took more than 10 s.
const probeTime = 2 * time.Minute

// probe runs the command at path to find its real path and version. pyenv has shims for versions that are disabled,
// so the file name proves nothing. It warns of a command that does not end within the limit.
func (j *job) probe(ctx context.Context, path string, limit time.Duration) (interpreter, bool) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var stdout bytes.Buffer
	cmd := command(limited, path, "-I", "-c", probeScript)
	cmd.Stdout = &stdout
	if err := cmd.Run(); err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			j.warnings = append(j.warnings, fmt.Sprintf("%s did not report its version within %s, so another Python may be used; remove it from PATH, or pass an interpreter with --python", path, limit))
		}
		return interpreter{}, false
	}
	lines := strings.Fields(stdout.String())
	if len(lines) != 2 {
		return interpreter{}, false
	}
	return interpreter{Path: lines[0], Version: lines[1]}, true
}

// noPython lists the interpreters that were found instead.
func (j *job) noPython(seen []interpreter) error {
	e := &Error{Step: "finding Python", LogPath: j.output.path}
	if j.spec.Python == "" {
		e.Problem = "a Space needs Python 3.10 or newer, but this machine has " + formatInterpreters(seen)
		e.Hint = "install one (on Debian: apt install python3 python3-venv), or pass one with --python"
		return e
	}
	seen = slices.DeleteFunc(seen, func(i interpreter) bool { return i.release().before(oldestPython) })
	e.Problem = fmt.Sprintf("python_version requires Python %s, but this machine has %s", j.spec.Python, formatInterpreters(seen))
	e.Hint = fmt.Sprintf(`install it (with uv: "uv python install %s"), change python_version in README.md, or pass an interpreter with --python`, j.spec.Python)
	return e
}

func formatInterpreters(all []interpreter) string {
	var texts []string
	for _, i := range all {
		texts = append(texts, i.Version+" ("+i.Path+")")
	}
	return orElse(strings.Join(texts, ", "), "none")
}

// findInterpreter resolves Config.Interpreter, a path or a command, without following links: a virtual environment is
// identified by its link.
func findInterpreter(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// foldersScript prints the folders from which an interpreter reads. A line of a .pth file is in sys.path by then.
const foldersScript = `import os, sys
for path in {sys.prefix, sys.base_prefix, sys.base_exec_prefix, os.path.dirname(os.path.realpath(sys.executable)), *sys.path}:
    if os.path.exists(path):
        print(os.path.abspath(path))`

// Folders returns the folders from which the interpreter reads, without those that lie below another one: its prefix, that
// of its base, and the targets of editable installs that a .pth file names. A sandbox must contain them.
//
// The Python of an environment that a Builder has made is not started: it would run code of the Space, which could also
// name any folder of the machine.
func (e *Environment) Folders(ctx context.Context) ([]string, error) {
	if e.base == "" {
		return foldersOf(ctx, e.Python)
	}
	folders, err := foldersOf(ctx, e.base)
	return append(folders, e.Dir), err
}

func foldersOf(ctx context.Context, python string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := command(ctx, python, "-I", "-c", foldersScript)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("read the folders of %s: %w: %s", python, err, bytes.TrimSpace(stderr.Bytes()))
	}
	found := slices.Sorted(strings.SplitSeq(strings.TrimSpace(stdout.String()), "\n"))
	var all []string
	for _, path := range found {
		isBelow := func(folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }
		if !slices.ContainsFunc(all, isBelow) {
			all = append(all, path)
		}
	}
	return all, nil
}
