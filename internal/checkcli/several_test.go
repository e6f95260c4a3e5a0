package checkcli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/check"
)

// TestSeveralSpaces writes one report, in which a file has its folder. A folder that is given twice is checked once.
func TestSeveralSpaces(t *testing.T) {
	root := filepath.Join(t.TempDir(), strings.Repeat("deep/", 20)) // so that the path of another folder is absolute
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	first, second, far := filepath.Join(root, "first"), filepath.Join(root, "second"), warned(t)
	for from, to := range map[string]string{warned(t): first, write(t, map[string]string{"app.py": app, "main.py": ""}): second} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	got := run("check", "--format", "json", "first", "second", "./first/", far)
	var report check.Report
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != 7 {
		t.Fatalf("%v: %+v", err, got)
	}
	var files []string
	for _, f := range report.Findings {
		files = append(files, f.ID+" "+f.File)
	}
	far = filepath.ToSlash(far)
	want := []string{"A107 first/README.md", "A201 first/requirements.txt", "A100 second/README.md", "A107 " + far + "/README.md", "A201 " + far + "/requirements.txt"}
	if !slices.Equal(files, want) {
		t.Errorf("findings %q, want %q", files, want)
	}
	if !slices.Contains(report.LookedAt, "second: Python: 1 file in import order (app.py)") {
		t.Errorf("looked at %q", report.LookedAt)
	}
	if skipped := strings.Join(report.NotLookedAt, "; "); strings.Count(skipped, "--run") != 1 {
		t.Errorf("not looked at %q", skipped)
	}
	if got := run("check", far); !strings.Contains(got.out, far+"/requirements.txt:1: error A201 ") {
		t.Errorf("a folder far away: %s", got.out)
	}
}

// TestSeveralStarts starts each Space, and fails with the first start that fails.
func TestSeveralStarts(t *testing.T) {
	s := &stages{err: errors.New("the build failed")}
	out, err := execute(t, Config{Stages: s}, "--run", healthy(t), healthy(t))
	if err != s.err || s.calls != 2 || strings.Count(out, "found at the start") != 2 {
		t.Errorf("error %v after %d starts\n%s", err, s.calls, out)
	}
}
