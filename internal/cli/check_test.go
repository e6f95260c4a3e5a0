package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/build"
)

// TestCheckExitCodes compares the exit codes of check with those of run for the same folder: both refuse it, or only check
// has findings.
func TestCheckExitCodes(t *testing.T) {
	const readme = "---\ntitle: x\nsdk: gradio\nsdk_version: 6.31.0\npython_version: '3.12'\n---\n"
	for name, row := range map[string]struct {
		files map[string]string
		code  int
	}{
		"no app file": {map[string]string{"README.md": readme}, ExitConfig},
		"docker":      {map[string]string{"README.md": "---\nsdk: docker\n---\n", "app.py": ""}, ExitConfig},
		"findings":    {map[string]string{"README.md": readme, "app.py": "import gradio", "requirements.txt": "torch==2.4.0\n"}, ExitFindings},
		"no folder":   {nil, ExitConfig},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "demo")
			for file, text := range row.files {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var out, errOut strings.Builder
			if code := Run(t.Context(), []string{"check", "--state", t.TempDir(), dir}, &out, &errOut); code != row.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, row.code, out.String(), errOut.String())
			}
			if reported := strings.Contains(out.String(), "Looked at"); reported != (row.files != nil) || reported == (errOut.Len() > 0) {
				t.Errorf("the report on stdout and the errors:\n%s---\n%s", out.String(), errOut.String())
			}
			if row.code == ExitConfig {
				if code := Run(t.Context(), []string{"run", "--state", t.TempDir(), "--gpus", "none", dir}, &out, &errOut); code != row.code {
					t.Errorf("run exits with %d, want %d\n%s", code, row.code, errOut.String())
				}
			}
		})
	}
}

// TestBuiltPython finds the environment of a Space by its versions.
func TestBuiltPython(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	t.Setenv("SPACEHOST_ENVIRONMENTS", "")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	environment := func(name, gradio, python string) string {
		home := filepath.Join(state, "environments", "environments", name)
		write(filepath.Join(home, "bin", "python"), "")
		write(filepath.Join(home, "environment.json"), `{"gradio": "`+gradio+`", "pythonVersion": "`+python+`"}`)
		return filepath.Join(home, "bin", "python")
	}
	write(filepath.Join(dir, "README.md"), "---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: '3.10'\n---\n")
	environment("a", "5.49.1", "3.10.13")
	environment("b", "6.31.0", "3.12.1")
	if got := builtPython(state, dir); got != "" {
		t.Errorf("got %s, want none", got)
	}
	want := environment("c", "6.31.0", "3.10.13")
	if got := builtPython(state, dir); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if env, ok := build.Matching(filepath.Join(state, "environments"), build.Spec{Python: "3.1"}); ok {
		t.Errorf("3.1 matches %s", env.PythonVersion)
	}
	if got := builtPython(state, filepath.Join(dir, "none")); got != "" {
		t.Errorf("a missing folder: got %s", got)
	}
}
