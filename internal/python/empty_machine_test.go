package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// emptyMachine is an empty folder and home, and a PATH with a new virtual environment, python3 and sh alone.
type emptyMachine struct {
	dir       string
	python    string
	variables []string
}

func newEmptyMachine(t *testing.T) *emptyMachine {
	t.Helper()
	venv, programs := filepath.Join(t.TempDir(), "venv"), t.TempDir()
	python := strings.TrimSpace(execute(t, "", nil, "python3", "-c", "import sys; print(sys.executable)"))
	execute(t, "", nil, python, "-m", "venv", venv)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"python3": python, "sh": shell} {
		if err := os.Symlink(target, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	e := &emptyMachine{dir: t.TempDir(), python: filepath.Join(venv, "bin", "python")}
	e.set("PATH", filepath.Join(venv, "bin")+":"+programs)
	e.set("HOME", t.TempDir())
	e.set("PIP_DISABLE_PIP_VERSION_CHECK", "1")
	e.set("PYTHONDONTWRITEBYTECODE", "1")
	for _, name := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "SPACEHOST"} {
		e.set(name, "")
	}
	if os.Getenv("SPACEHOST_WHEEL_COLD") == "" {
		e.set("SPACEHOST_ENVIRONMENTS", filepath.Join(cache(t), "environments"))
	}
	return e
}

// set sets an environment variable. An empty value hides the one of this process: the programs treat it as not set.
func (e *emptyMachine) set(name, value string) { e.variables = append(e.variables, name+"="+value) }

// run runs a program in the empty folder. "python" is that of the virtual environment.
func (e *emptyMachine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if name == "python" {
		name = e.python
	}
	return execute(t, e.dir, e.variables, name, args...)
}
