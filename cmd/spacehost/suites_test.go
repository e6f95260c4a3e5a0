package main

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	pytestDir     = "../../examples/pytest"
	pytestVersion = "9.2.0"
	pytestTests   = 4 // number of tests in examples/pytest/test_space.py; all must pass
)

// pytestPackages returns a folder with pytest for the interpreter of the test environment, kept between runs. The folder is not in
// the environment, which stays as the product's builder made it.
func pytestPackages(t *testing.T, python string) string {
	t.Helper()
	made := filepath.Base(filepath.Dir(filepath.Dir(python)))
	dir := filepath.Join(cacheDir(t), "pytest-"+pytestVersion+"-"+made)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	making, err := os.MkdirTemp(cacheDir(t), "making-pytest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(making)
	cmd := exec.Command(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", making, "pytest=="+pytestVersion)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pip install: %v\n%s", err, out)
	}
	if err := os.Rename(making, dir); err != nil && !os.IsExist(err) { // a concurrent run finished first
		t.Fatal(err)
	}
	return dir
}

// suite is pytest's summary of a run (JUnit XML).
type suite struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Skipped  int `xml:"skipped,attr"`
}

// runPytest runs the suite in dir with this product, as a user does.
func runPytest(t *testing.T, dir string) (code int, output string, found suite) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	python, report := environment(t), filepath.Join(t.TempDir(), "report.xml")
	cmd := exec.CommandContext(t.Context(), python, "-m", "pytest", "--junitxml", report)
	cmd.Dir = dir
	cmd.Env = append(productEnv(t), "SPACEHOST="+self, "PYTHONPATH="+pytestPackages(t, python), "HOME="+t.TempDir())
	out, _ := cmd.CombinedOutput() // the exit code is checked below
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("pytest wrote no report: %v\n%s", err, out)
	}
	var all struct {
		Suites []suite `xml:"testsuite"`
	}
	if err := xml.Unmarshal(data, &all); err != nil || len(all.Suites) != 1 {
		t.Fatalf("pytest's report: %v, %+v in %s", err, all, data)
	}
	return cmd.ProcessState.ExitCode(), string(out), all.Suites[0]
}

func TestPytestExample(t *testing.T) {
	code, out, got := runPytest(t, copySpace(t, pytestDir))
	if want := (suite{Tests: pytestTests}); code != 0 || got != want {
		t.Errorf("pytest: exit code %d, %+v; want 0, %+v\n%s", code, got, want, out)
	}
}

// TestPytestExampleShowsWhyTheSpaceDoesNotStart checks that pytest's output alone names the cause of a failed start.
func TestPytestExampleShowsWhyTheSpaceDoesNotStart(t *testing.T) {
	dir := copySpace(t, pytestDir)
	if err := os.WriteFile(filepath.Join(dir, "space", "app.py"), []byte("raise RuntimeError('the weights are missing')\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, got := runPytest(t, dir)
	if want := (suite{Tests: pytestTests, Errors: pytestTests}); code != 1 || got != want || !strings.Contains(out, "the weights are missing") {
		t.Errorf("pytest: exit code %d, %+v; want 1, %+v and the Space's own error\n%s", code, got, want, out)
	}
}

// copySpace copies a folder, so that a suite can write into it.
func copySpace(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
