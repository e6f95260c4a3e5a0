package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// interpreter is a Python on this machine.
type interpreter struct {
	path, version string
	venv          bool // has the modules venv and ensurepip, which Debian packages separately
}

// suitable reports whether Gradio, spaces and the runner work with the interpreter: 3.10 and newer.
func (i interpreter) suitable() bool {
	parts := strings.Split(i.version, ".")
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[min(1, len(parts)-1)])
	return major == 3 && minor >= 10
}

func (i interpreter) String() string { return fmt.Sprintf("%s (%s)", i.version, i.path) }

func (c Config) python(ctx context.Context) []Finding {
	uv := c.uv(ctx)
	all := c.machine.pythons(ctx)
	chosen := slices.IndexFunc(all, interpreter.suitable)
	switch {
	case chosen < 0:
		return []Finding{withoutPython(all), uvFinding(uv)}
	case !all[chosen].venv && uv == "":
		return []Finding{withoutVenv(all[chosen])}
	}
	return []Finding{pythonFinding(all, chosen), uvFinding(uv)}
}

func withoutPython(all []interpreter) Finding {
	seen := "none at all"
	if len(all) > 0 {
		seen = "only " + listed(all)
	}
	return Finding{
		Level: Problem, Text: "A Space needs Python 3.10 or newer, but this machine has " + seen,
		Do: "Install one (Debian and Ubuntu: `apt install python3 python3-venv`; with uv: `uv python install 3.12`), or pass one with `spacehost run --python PATH`",
	}
}

func withoutVenv(i interpreter) Finding {
	name := "python" + strings.Join(strings.Split(i.version, ".")[:2], ".") + "-venv"
	return Finding{
		Level: Problem, Text: fmt.Sprintf("Python %s has no venv or no ensurepip, and uv was not found: no environment can be created", i),
		Do: fmt.Sprintf("Debian and Ubuntu: `apt install %s`; or install uv (https://docs.astral.sh/uv)", name),
	}
}

// pythonFinding: package build uses the first suitable interpreter, unless python_version requires another.
func pythonFinding(all []interpreter, chosen int) Finding {
	others := slices.Delete(slices.Clone(all), chosen, chosen+1)
	others = slices.DeleteFunc(others, func(i interpreter) bool { return !i.suitable() })
	text := fmt.Sprintf("Environments use Python %s", all[chosen])
	if len(others) > 0 {
		text += "; for a Space whose python_version requires it: " + listed(others)
	}
	return ok("%s", text)
}

func listed(all []interpreter) string {
	texts := make([]string, len(all))
	for n, i := range all {
		texts[n] = i.String()
	}
	return strings.Join(texts, ", ")
}

func uvFinding(uv string) Finding {
	if uv != "" {
		return ok("uv installs packages (%s)", uv)
	}
	return Finding{
		Level: Note, Text: "uv was not found: the first build installs it from the package index; if that fails, the slower pip is used",
		Do: "Nothing",
	}
}

// uv returns a working uv: the first on PATH, that of Config.UV, or one that package build installed earlier (tools.go there).
func (c Config) uv(ctx context.Context) string {
	paths, _ := filepath.Glob(filepath.Join(c.Environments, "tools", "uv-*", "bin", "uv"))
	paths = append([]string{c.UV}, paths...)
	for _, dir := range c.machine.searchPath() {
		path := filepath.Join(dir, "uv")
		if _, err := exec.LookPath(path); err == nil {
			paths = append([]string{path}, paths...)
			break
		}
	}
	for _, path := range paths {
		if _, err := c.machine.output(ctx, path, "--version"); err == nil {
			return path
		}
	}
	return ""
}

// pythons probes every Python, in the order in which package build prefers them.
func (m machine) pythons(ctx context.Context) (all []interpreter) {
	var probed []string
	for _, path := range m.pythonPaths() {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || slices.Contains(probed, real) {
			continue
		}
		probed = append(probed, real)
		i, ok := m.probePython(ctx, path)
		if ok && !slices.ContainsFunc(all, func(known interpreter) bool { return known.path == i.path }) {
			all = append(all, i)
		}
	}
	return all
}

// pythonPaths searches the places that package build searches: PATH, and the folders of pyenv and uv.
func (m machine) pythonPaths() (all []string) {
	for _, name := range []string{"python3", "python", "python3.*"} {
		for _, dir := range m.searchPath() {
			found, _ := filepath.Glob(filepath.Join(dir, name))
			all = append(all, found...)
		}
	}
	for _, place := range [][2]string{{"PYENV_ROOT", "versions"}, {"HOME", ".pyenv/versions"}, {"UV_PYTHON_INSTALL_DIR", ""},
		{"XDG_DATA_HOME", "uv/python"}, {"HOME", ".local/share/uv/python"}} {
		if base := m.variable(place[0]); base != "" {
			found, _ := filepath.Glob(filepath.Join(base, place[1], "*/bin/python3"))
			all = append(all, found...)
		}
	}
	return slices.DeleteFunc(all, func(path string) bool {
		name := filepath.Base(path)
		shim := filepath.Base(filepath.Dir(path)) == "shims"                                        // of pyenv: slow, and their targets are found below "versions"
		return strings.Trim(name, "python.0123456789") != "" || shim && strings.Contains(name, ".") // python3.12-config, python3.12t
	})
}

func (m machine) searchPath() []string {
	return slices.DeleteFunc(filepath.SplitList(m.variable("PATH")), func(dir string) bool { return !filepath.IsAbs(dir) })
}

// describeScript prints the interpreter behind shims and virtual environments, which package build uses too.
const describeScript = `import importlib.util, os, sys
if sys.implementation.name == "cpython":
    print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    print("%d.%d.%d" % sys.version_info[:3])
    print("venv" if all(map(importlib.util.find_spec, ("venv", "ensurepip"))) else "bare")`

func (m machine) probePython(ctx context.Context, path string) (interpreter, bool) {
	stdout, err := m.output(ctx, path, "-I", "-c", describeScript)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if err != nil || len(lines) != 3 {
		return interpreter{}, false
	}
	return interpreter{path: lines[0], version: lines[1], venv: lines[2] == "venv"}, true
}

// output runs a command in its own process group, so that a hanging shim is killed with its children.
func (m machine) output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.WaitDelay = m.environ, &stdout, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	return stdout.String(), err
}
