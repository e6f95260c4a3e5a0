// Package python has the sources of the wheel spacehost: a Python API, a pytest plugin, and the binary as a command. Its test installs
// a wheel on a PATH without Go and gcc, and runs the Python tests and the example of the plugin there.
package python

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/build/buildtest"
)

const (
	root    = "../.." // of the repository
	version = "0.1.0.dev0"
	timeout = 10 * time.Minute // of one program, which may download packages
)

// TestWheel tests the wheel in $SPACEHOST_WHEEL, or one with a binary that it builds. The subtests use virtual environments of their
// own. With SPACEHOST_WHEEL_COLD=1, Spaces build their environments anew, as on a new machine.
func TestWheel(t *testing.T) {
	tools := installTools(t)
	wheel := os.Getenv("SPACEHOST_WHEEL")
	if wheel == "" {
		wheel = buildWheel(t, tools)
	}
	checkLicences(t, wheel)
	t.Run("package", func(t *testing.T) {
		t.Parallel()
		e := newEmptyMachine(t)
		e.run(t, "python", "-m", "pip", "install", "--quiet", wheel)
		if out := e.run(t, "sh", "-c", "spacehost doctor || true"); !strings.Contains(out, "uv installs packages ("+filepath.Join(filepath.Dir(e.python), "uv")) {
			t.Errorf("the uv that the wheel requires is not used:\n%s", out)
		}
		e.run(t, "sh", "-c", "! command -v go && ! command -v gcc")
		e.set("PYTHONPATH", sitePackages(t, tools)) // pytest and gradio_client; the wheel itself needs neither
		e.run(t, "python", "-m", "pytest", "-p", "no:cacheprovider", absolute(t, "tests"))
	})
	t.Run("snippets", func(t *testing.T) {
		t.Parallel()
		e := newEmptyMachine(t)
		e.set("PIP_FIND_LINKS", strings.TrimSpace(filepath.Dir(wheel)+" "+os.Getenv("PIP_FIND_LINKS")))
		if err := os.CopyFS(e.dir, os.DirFS(filepath.Join(root, "examples", "pytest"))); err != nil {
			t.Fatal(err)
		}
		out := e.run(t, "sh", "-ec", snippetScript(t))
		if !strings.Contains(out, "5 passed") || !strings.Contains(out, "2 workers") {
			t.Errorf("the snippets did not run the five tests of examples/pytest on two workers:\n%s", out)
		}
	})
	t.Run("check", func(t *testing.T) {
		t.Parallel()
		e := newEmptyMachine(t)
		e.set("PIP_FIND_LINKS", strings.TrimSpace(filepath.Dir(wheel)+" "+os.Getenv("PIP_FIND_LINKS")))
		checkSnippets(t, e)
	})
	t.Run("pre-commit", func(t *testing.T) {
		t.Parallel()
		e := newEmptyMachine(t)
		e.set("PIP_FIND_LINKS", strings.TrimSpace(filepath.Dir(wheel)+" "+os.Getenv("PIP_FIND_LINKS")))
		checkBeforeCommit(t, e, tools)
	})
	t.Run("uvx", func(t *testing.T) {
		t.Parallel()
		e := newEmptyMachine(t)
		e.set("UV_CACHE_DIR", t.TempDir())
		out := e.run(t, filepath.Join(tools, "bin", "uvx"), "--from", wheel, "spacehost", "version")
		if !strings.HasPrefix(lastLine(out), "spacehost ") {
			t.Errorf("got %q, want the version of spacehost", out)
		}
	})
}

// checkLicences checks that the wheel has the licences of its own, of Go and of the modules, where PEP 639 puts them.
func checkLicences(t *testing.T, wheel string) {
	t.Helper()
	z, err := zip.OpenReader(wheel)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for name, want := range map[string]string{"LICENSE": "Apache License", "THIRD_PARTY_LICENSES": "github.com/mattn/go-sqlite3 v"} {
		found := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".dist-info/licenses/"+name) })
		if found < 0 {
			t.Errorf("the wheel has no licence file %s", name)
			continue
		}
		f, err := z.File[found].Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not contain %q (%v)", name, want, err)
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// installTools returns a virtual environment with the packages of requirements.txt, kept between runs.
func installTools(t *testing.T) string {
	t.Helper()
	pinned, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pinned)
	dir := filepath.Join(cache(t), "python-tools-"+hex.EncodeToString(sum[:6]))
	done := filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	execute(t, "", nil, "python3", "-m", "venv", "--clear", dir)
	execute(t, "", nil, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt")
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func cache(t *testing.T) string {
	t.Helper()
	dir, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func sitePackages(t *testing.T, venv string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(venv, "lib", "python3*", "site-packages"))
	if err != nil || len(found) != 1 {
		t.Fatalf("site-packages in %s: %v, %v", venv, found, err)
	}
	return found[0]
}

// buildWheel builds a wheel as `make wheel` does, but with this machine's C compiler: its binary may need a newer glibc.
func buildWheel(t *testing.T, tools string) string {
	t.Helper()
	if err := buildtest.LookAtSources(root); err != nil {
		t.Fatal(err)
	}
	binary, dist := filepath.Join(t.TempDir(), "spacehost"), t.TempDir()
	execute(t, "", nil, "go", "build", "-o", binary, "spacehost/cmd/spacehost")
	execute(t, "", nil, "../packaging/notices", "THIRD_PARTY_LICENSES")
	variables := []string{"SPACEHOST_BINARY=" + binary, "SPACEHOST_ARCH=" + runtime.GOARCH, "SPACEHOST_VERSION=" + version}
	execute(t, "", variables, filepath.Join(tools, "bin", "hatchling"), "build", "-t", "wheel", "-d", dist)
	found, err := filepath.Glob(filepath.Join(dist, "spacehost-"+version+"-py3-none-manylinux_2_28_*.whl"))
	if err != nil || len(found) != 1 {
		t.Fatalf("wheels in %s: %v, %v", dist, found, err)
	}
	return found[0]
}

// execute runs a program to its end, and returns its output. A failure fails the test.
func execute(t *testing.T, dir string, variables []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), variables...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}
