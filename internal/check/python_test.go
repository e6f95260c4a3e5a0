package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// interpreter returns the Python that reads Spaces in these tests.
func interpreter(t testing.TB) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("no python3 on PATH: ", err)
	}
	return python
}

// read reads a folder and fails on errors of the reader itself.
func read(t testing.TB, dir string) output {
	t.Helper()
	out, err := readPython(t.Context(), interpreter(t), dir, "app.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range out.NotLookedAt {
		if strings.Contains(sentence, "error of the check itself") {
			t.Errorf("%s: %s", dir, sentence)
		}
	}
	return out
}

// places returns the facts of at least a severity as "F308 app.py:12". The page's severity counts where the fact has none.
func places(t testing.TB, facts []Fact, least Severity) (all []string) {
	t.Helper()
	var report Report
	if err := report.Add(StageRead, facts...); err != nil {
		t.Fatal(err)
	}
	order := []Severity{Info, Warning, Error}
	for _, f := range report.Findings {
		if placeholder.MatchString(f.Text + f.Fix) {
			t.Errorf("%s at %s lacks a value: %s; %s", f.ID, f.Place(), f.Text, f.Fix)
		}
		if slices.Index(order, f.Severity) >= slices.Index(order, least) {
			all = append(all, fmt.Sprintf("%s %s", f.ID, f.Place()))
		}
	}
	return all
}

func writeFiles(t testing.TB, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
