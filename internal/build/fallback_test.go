package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitPackages returns the address of a git repository with the packages ownpkg, at its root, and subpkg.
func gitPackages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	setup := "from setuptools import setup\nsetup(name=%q, version='1.0', py_modules=[%q])\n"
	writeFiles(t, dir, map[string]string{
		"setup.py": fmt.Sprintf(setup, "ownpkg", "ownpkg"), "ownpkg.py": "", "sub/setup.py": fmt.Sprintf(setup, "subpkg", "subpkg"), "sub/subpkg.py": "",
	})
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return "git+file://" + dir
}

// TestRequirementForms installs each form with the real uv and pip. pip says which forms are valid, since the Hub uses
// it.
func TestRequirementForms(t *testing.T) {
	t.Parallel()
	git := gitPackages(t)
	const hash = "sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374"
	rows := []struct {
		name, requirements string
		modules            string // installed by the file
		pip                bool   // uv refuses or ignores it
	}{
		{"editable from git", "-e " + git + "#egg=ownpkg", "ownpkg", true},
		{"editable from git, with a marker", "-e " + git + "#egg=ownpkg ; python_version < '3'\niniconfig", "iniconfig", true},
		{"editable from a folder of git", "--editable=" + git + "#egg=subpkg&subdirectory=sub", "subpkg", true},
		{"another version control behind a marker", "hg+https://127.0.0.1:1/x#egg=x ; python_version < '3'\niniconfig", "iniconfig", true},
		{"option without a space", "-rmore.txt", "iniconfig", true},
		{"config settings", "iniconfig --config-settings=\"a=b\"", "iniconfig", true},
		{"two indexes", "-i https://pypi.org/simple\n-i https://pypi.org/simple\niniconfig", "iniconfig", true},
		{"links that do not exist", "-f ./nolinks\niniconfig", "iniconfig", true},
		{"pre-releases", "--pre\niniconfig", "iniconfig", true},
		{"wheels preferred", "--prefer-binary\niniconfig", "iniconfig", true},
		{"trusted host", "--trusted-host pypi.org\niniconfig", "iniconfig", true},
		{"git", git + "#egg=ownpkg", "ownpkg", false},
		{"git by name", "ownpkg @ " + git, "ownpkg", false},
		{"folder of git", git + "#egg=subpkg&subdirectory=sub", "subpkg", false},
		{"editable folder", "-e ./local", "ownpkg", false},
		{"nested and constrained", "-r sub/more.txt\n-c limits.txt", "iniconfig", false},
		{"hash", "iniconfig==2.0.0 --hash=" + hash, "iniconfig", false},
		{"from source", "--no-binary iniconfig\niniconfig", "iniconfig", false},
		{"extra index without the package", "--extra-index-url https://pypi.org/nosuch\niniconfig", "iniconfig", false},
		{"feature", "--use-feature=fast-deps\niniconfig", "iniconfig", false},
	}
	state := stateDir(t)
	env := build(t, New(Config{Dir: state}), Spec{Gradio: "99.1.0"}, false)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := spaceDir(t, map[string]string{
				"requirements.txt": row.requirements, "more.txt": "iniconfig\n", "sub/more.txt": "-c ../limits.txt\niniconfig\n", "limits.txt": "iniconfig<3\n",
				"local/setup.py": "from setuptools import setup\nsetup(name='ownpkg', version='1.0', py_modules=['ownpkg'])\n", "local/ownpkg.py": "",
			})
			log := installForm(t, state, env, dir)
			python(t, env, "import "+row.modules)
			if got := strings.Contains(log, "continuing with pip"); got != row.pip {
				t.Errorf("pip was used: %t, want %t\n%s", got, row.pip, log)
			}
			removeForm(t, env)
		})
	}
}

// installForm installs the requirements of dir into env and returns the log.
func installForm(t *testing.T, state string, env *Environment, dir string) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	j, err := New(Config{Dir: state, LogPath: log}).newJob(Spec{Gradio: "99.1.0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer j.output.Close()
	if err := j.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	uv, ok := j.findUV(t.Context())
	if !ok {
		t.Fatal("no uv")
	}
	j.tool, j.home = uvInstaller(uv), env.Dir
	if err := j.runSteps(t.Context(), []step{{"installing requirements.txt", requirements, j.installRequirements}}); err != nil {
		t.Errorf("install: %v\n%s", err, strings.Join(tailOf(err), "\n"))
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func removeForm(t *testing.T, env *Environment) {
	t.Helper()
	if out, err := exec.Command(env.Python, "-I", "-m", "pip", "uninstall", "-y", "ownpkg", "subpkg", "iniconfig").CombinedOutput(); err != nil {
		t.Fatalf("pip uninstall: %v\n%s", err, out)
	}
}

// TestExtraIndexIsSkipped: pip skips an extra index that cannot be reached, uv ends.
func TestExtraIndexIsSkipped(t *testing.T) {
	in := inputs{Files: map[string]string{requirements: "--extra-index-url http://127.0.0.1:1/simple\n-f http://links.invalid/x.html\nsix"}}
	rows := []struct {
		output string
		pip    bool
	}{
		{"error: Request failed after 3 retries in 10.3s\n  cause: Failed to fetch: http://127.0.0.1:1/simple/six/\n  cause: error sending request for url (http://127.0.0.1:1/simple/six/)", true},
		{"error: Failed to read `--find-links` URL: http://links.invalid/x.html\n  cause: Failed to fetch: http://links.invalid/x.html", true},
		{"error: Failed to fetch: `https://links.invalid/x.html`\n  Caused by: HTTP status client error (403 Forbidden) for url (https://links.invalid/x.html)", true},
		{"error: Request failed after 3 retries\n  cause: Failed to fetch: https://pypi.org/simple/six/", false},
		{"error: No solution found when resolving dependencies", false},
		{"error: Git operation failed", false},
	}
	for _, row := range rows {
		if reason, ok := in.pipAccepts(&toolError{output: row.output}); ok != row.pip {
			t.Errorf("pipAccepts = %q, %t, want %t for\n%s", reason, ok, row.pip, row.output)
		}
	}
}
