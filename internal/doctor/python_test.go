package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// python returns a command that answers describeScript like a Python at /real.
func python(version, modules string) string {
	return fmt.Sprintf("#!/bin/sh\nprintf '/real/python%s\\n%s\\n%s\\n'\n", version, version, modules)
}

const (
	disabledShim = "#!/bin/sh\nexit 127\n"
	goodUV       = "#!/bin/sh\necho uv 0.13.8\n"
)

func TestPython(t *testing.T) {
	const uvFetched, packagedUV = "state/tools/uv-0.13.8/bin/uv", "venv/bin/uv"
	rows := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"good", map[string]string{"bin/python3": python("3.12.4", "venv"), "bin/uv": goodUV},
			[]string{"ok | use Python 3.12.4 (/real/python3.12.4)", "ok | /bin/uv)"}},
		{"uv of an earlier build", map[string]string{"bin/python3": python("3.10.0", "venv"), uvFetched: goodUV},
			[]string{"ok | Python 3.10.0", "ok | /" + uvFetched}},
		{"uv of the wheel", map[string]string{"bin/python3": python("3.10.0", "venv"), packagedUV: goodUV},
			[]string{"ok | Python 3.10.0", "ok | /" + packagedUV}},
		{"uv that does not run", map[string]string{"bin/python3": python("3.10.0", "venv"), "bin/uv": disabledShim},
			[]string{"ok | Python 3.10.0", "note | uv was not found | Nothing"}},
		{"first suitable", map[string]string{"bin/python3": python("3.9.2", "venv"), "bin/python3.12": disabledShim, "bin/python3.13": python("3.13.0", "venv"),
			"home/.pyenv/versions/3.11/bin/python3": python("3.11.7", "venv"), "bin/python3.13-config": python("3.14.0", "venv")},
			[]string{"ok | use Python 3.13.0 (/real/python3.13.0); for a Space whose python_version requires it: 3.11.7 (/real/python3.11.7)", "note | uv was not found"}},
		{"the same twice", map[string]string{"bin/python3": python("3.12.4", "venv"), "bin/python3.12": python("3.12.4", "venv")},
			[]string{"ok | use Python 3.12.4 (/real/python3.12.4)", "note | uv"}},
		{"Debian without python3-venv", map[string]string{"bin/python3": python("3.11.2", "bare")},
			[]string{"problem | Python 3.11.2 (/real/python3.11.2) has no venv or no ensurepip, and uv was not found | apt install python3.11-venv`; or install uv"}},
		{"uv needs no ensurepip", map[string]string{"bin/python3": python("3.11.2", "bare"), "bin/uv": goodUV}, []string{"ok | 3.11.2", "ok | uv"}},
		{"too old", map[string]string{"bin/python3": python("3.9.2", "venv"), "bin/uv": goodUV},
			[]string{"problem | needs Python 3.10 or newer, but this machine has only 3.9.2 (/real/python3.9.2) | apt install python3 python3-venv", "ok | uv"}},
		{"Python 2", map[string]string{"bin/python": python("2.7.18", "venv")}, []string{"problem | only 2.7.18", "note | uv"}},
		{"none", nil, []string{"problem | none at all | --python PATH", "note | uv"}},
		{"not CPython", map[string]string{"bin/python3": "#!/bin/sh\n"}, []string{"problem | none at all", "note | uv"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			root := tree(t, row.files)
			m := fake(t, nil, "PATH=relative:"+filepath.Join(root, "bin"), "HOME="+filepath.Join(root, "home"))
			expect(t, Config{Environments: filepath.Join(root, "state"), UV: filepath.Join(root, packagedUV), machine: m}.python(t.Context()), row.want...)
		})
	}
}

func TestPyenvVersionsBypassShims(t *testing.T) {
	root := tree(t, map[string]string{
		"shims/python3":                   "#!/bin/sh\nexec " + "$HOME/versions/3.12.1/bin/python3 \"$@\"\n",
		"shims/python3.12":                python("3.99.0", "venv"),
		"home/versions/3.12.1/bin/python": "", "home/versions/3.12.1/bin/python3": python("3.12.1", "venv"),
	})
	home := filepath.Join(root, "home")
	m := fake(t, nil, "PATH="+filepath.Join(root, "shims"), "HOME="+home, "PYENV_ROOT="+home)
	all := m.pythons(t.Context())
	if len(all) != 1 || all[0] != (interpreter{"/real/python3.12.1", "3.12.1", true}) {
		t.Errorf("got %v, want only 3.12.1", all)
	}
}

func TestLinkedPythonIsProbedOnce(t *testing.T) {
	root := tree(t, map[string]string{"bin/python3.12": "#!/bin/sh\necho probed >> \"$LOG\"\n"})
	for _, name := range []string{"python3", "python"} {
		if err := os.Symlink("python3.12", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(root, "log")
	m := fake(t, nil, "PATH="+filepath.Join(root, "bin"), "LOG="+log)
	m.pythons(t.Context())
	if text, err := os.ReadFile(log); string(text) != "probed\n" {
		t.Errorf("log %q, %v; want one line", text, err)
	}
}

func TestRealPython(t *testing.T) {
	m := machine{}.orThis()
	all := m.pythons(t.Context())
	if len(all) == 0 {
		t.Skip("no Python on this machine")
	}
	for _, i := range all {
		if !filepath.IsAbs(i.path) || len(i.version) < 5 {
			t.Errorf("%+v: want a path and three numbers", i)
		}
	}
}
