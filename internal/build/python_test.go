package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// machine sets PATH and HOME to those of a machine with these Pythons: command names and their versions. The version
// "off" is a shim of pyenv that does not run.
func machine(t *testing.T, pythons map[string]string) {
	t.Helper()
	bin, home := t.TempDir(), t.TempDir()
	for name, version := range pythons {
		script := fmt.Sprintf("#!/bin/sh\necho /real/python%s\necho %s\n", version, version)
		if version == "off" {
			script = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
		}
		dir := bin
		if strings.Contains(name, "/") {
			dir = home
		}
		writeFiles(t, dir, map[string]string{name: script})
	}
	t.Setenv("PATH", bin)
	t.Setenv("HOME", home)
	for _, name := range []string{"PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "XDG_DATA_HOME"} {
		t.Setenv(name, "")
	}
}

func TestFindPython(t *testing.T) {
	usual := map[string]string{"python3": "3.11.7", "python3.11": "3.11.7", "python3.13": "3.13.0", "python3.12": "off",
		".pyenv/versions/3.10.13/bin/python3": "3.10.13", ".local/share/uv/python/cpython-3.12/bin/python3": "3.12.1"}
	rows := []struct {
		name      string
		pythons   map[string]string
		requested string
		newest    release
		want      string
		warning   string
	}{
		{"any", usual, "", release{}, "3.11.7", ""},
		{"minor", usual, "3.13", release{}, "3.13.0", ""},
		{"of pyenv", usual, "3.10", release{}, "3.10.13", ""},
		{"of uv, behind a shim", usual, "3.12", release{}, "3.12.1", ""},
		{"exact", usual, "3.10.13", release{}, "3.10.13", ""},
		{"other patch", usual, "3.12.12", release{}, "3.12.1", "python_version requires Python 3.12.12; using 3.12.1 of this machine instead"},
		{"exact behind another patch", map[string]string{"python3.10": "3.10.1", "python3": "3.10.13"}, "3.10.13", release{}, "3.10.13", ""},
		{"too old by default", map[string]string{"python3": "3.9.2", "python3.12": "3.12.4"}, "", release{}, "3.12.4", ""},
		{"too new for Gradio 4", map[string]string{"python3": "3.13.0", "python3.12": "3.12.4"}, "", release{3, 12}, "3.12.4", ""},
		{"only one that is too new", map[string]string{"python3": "3.13.0"}, "", release{3, 12}, "3.13.0", ""},
		{"requested but too new", map[string]string{"python3": "3.12.1", "python3.13": "3.13.0"}, "3.13", release{3, 12}, "3.13.0", ""},
		{"just python", map[string]string{"python": "3.12.4"}, "", release{}, "3.12.4", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			machine(t, row.pythons)
			j := testJob(t, t.TempDir())
			j.spec.Python = row.requested
			got, err := j.findPython(t.Context(), row.newest)
			if err != nil || got.Version != row.want || got.Path != "/real/python"+row.want {
				t.Errorf("findPython(%q) = %+v, %v; want %s", row.requested, got, err, row.want)
			}
			if warnings := strings.Join(j.warnings, "|"); warnings != row.warning {
				t.Errorf("warnings %q, want %q", warnings, row.warning)
			}
		})
	}
}

func TestNoPython(t *testing.T) {
	rows := []struct {
		name      string
		pythons   map[string]string
		requested string
		want      string
	}{
		{"none at all", nil, "", "a Space needs Python 3.10 or newer, but this machine has none; install one (on Debian: apt install python3 python3-venv), or pass one with --python"},
		{"old ones", map[string]string{"python3": "3.8.18", "python3.9": "3.9.2"}, "", "a Space needs Python 3.10 or newer, but this machine has 3.8.18 (/real/python3.8.18), 3.9.2 (/real/python3.9.2); install one"},
		{"another", map[string]string{"python3": "3.11.7", "python3.11": "3.11.7", "python3.12": "off"}, "3.12",
			`python_version requires Python 3.12, but this machine has 3.11.7 (/real/python3.11.7); install it (with uv: "uv python install 3.12"), change python_version in README.md, or pass an interpreter with --python`},
		{"only older ones", map[string]string{"python3": "3.8.18"}, "3.12", "python_version requires Python 3.12, but this machine has none; install it"},
		{"unsupported version", map[string]string{"python3.8": "3.8.18"}, "3.8", `python_version "3.8" is not supported: a Space needs Python 3.10 or newer; correct it in README.md`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			machine(t, row.pythons)
			_, err := New(Config{Dir: t.TempDir()}).Build(t.Context(), Spec{Python: row.requested})
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
		})
	}
}

func TestFindRealPython(t *testing.T) {
	j := testJob(t, t.TempDir())
	got, err := j.findPython(t.Context(), release{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(got.Path, "--version").Output()
	if err != nil || string(out) != "Python "+got.Version+"\n" {
		t.Errorf("%s --version = %q, %v; want %s", got.Path, out, err, got.Version)
	}
	if real, _ := filepath.EvalSymlinks(got.Path); real != got.Path {
		t.Errorf("path %s is a link to %s, want the real one", got.Path, real)
	}
}

// TestPythonThatHangs: a command that does not answer is skipped with a warning, and one that fails without.
func TestPythonThatHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, script := range map[string]string{"hangs": "exec sleep 600", "fails": "exit 1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	j, err := New(Config{Dir: dir}).newJob(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if found, ok := j.probe(t.Context(), filepath.Join(dir, "fails"), probeTime); ok || len(j.warnings) > 0 {
		t.Errorf("a command that fails: %v %t, warnings %q", found, ok, j.warnings)
	}
	found, ok := j.probe(t.Context(), filepath.Join(dir, "hangs"), 10*time.Millisecond)
	if ok || len(j.warnings) != 1 || !strings.Contains(j.warnings[0], "/hangs did not report its version within 10ms") {
		t.Errorf("a command that hangs: %v %t, warnings %q", found, ok, j.warnings)
	}
}

func TestGivenInterpreterIsUsedUnchanged(t *testing.T) {
	t.Parallel()
	made := build(t, New(Config{Dir: stateDir(t)}), Spec{Gradio: "99.1.0"}, false)
	dir := t.TempDir()
	b := New(Config{Dir: dir, Interpreter: made.Python})

	env := build(t, b, Spec{Gradio: "99.1.0", Python: made.PythonVersion[:strings.LastIndex(made.PythonVersion, ".")]}, false)
	if env.Python != made.Python || env.Dir != made.Dir || env.Gradio != "99.1.0" || env.Spaces != "99.0.0" || !env.Cached || !slices.Equal(env.Warnings, []string{untestedWarning(made)}) {
		t.Errorf("env = %+v, want %+v, cached and with one warning, of releases that are not tested", env, made)
	}
	if exists(filepath.Join(dir, "environments")) || exists(filepath.Join(dir, "tools")) {
		t.Errorf("something was installed into %s", dir)
	}

	env = build(t, b, Spec{Gradio: "6.31.0", Python: "3.99"}, true)
	want := []string{
		fmt.Sprintf("README.md requires gradio 6.31.0, but %s has 99.1.0", made.Python),
		fmt.Sprintf("README.md requires Python 3.99, but %s is %s", made.Python, made.PythonVersion),
		untestedWarning(made),
	}
	if strings.Join(env.Warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("Warnings = %q, want %q", env.Warnings, want)
	}
}

func TestUnusableInterpreter(t *testing.T) {
	bare := filepath.Join(t.TempDir(), "bare")
	j := testJob(t, t.TempDir())
	base, err := j.findPython(t.Context(), release{})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(base.Path, "-m", "venv", "--without-pip", bare).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bare = filepath.Join(bare, "bin", "python")
	notPython := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(notPython, []byte("#!/bin/sh\necho no >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{
		"/nowhere/python": `program /nowhere/python not found; give the path of a Python with --python or the key "python"`,
		notPython:         notPython + ` is not a working Python; name another interpreter with --python or the key "python"`,
		bare:              bare + ` has no gradio and no spaces; install them with "` + bare + ` -m pip install gradio[oauth,mcp] spaces", or omit --python and the key "python"`,
	}
	for path, want := range rows {
		_, err := New(Config{Dir: t.TempDir(), Interpreter: path}).Build(t.Context(), Spec{})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestSameVersion(t *testing.T) {
	rows := []struct {
		requested, has string
		same           bool
	}{{"6.0", "6.0.0", true}, {"6.0.0", "6.0", true}, {"5.49.1", "5.49.1", true}, {"5.49.1", "5.49.2", false}, {"6.1", "6.10", false}}
	for _, row := range rows {
		if got := sameVersion(row.requested, row.has); got != row.same {
			t.Errorf("sameVersion(%s, %s) = %t", row.requested, row.has, got)
		}
	}
}
