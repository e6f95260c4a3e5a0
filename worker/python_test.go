package worker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
	"spacehost/internal/proctree/proctreetest"
)

// gradios are the supported releases of Gradio, by line.
var gradios = map[string]string{"v4": "4.44.1", "v5": "5.49.1", "v6": testGradio}

const testGradio = "6.31.0"

// testPython returns an interpreter with gradio 6 and spaces. $SPACEHOST_TEST_PYTHON names it. Otherwise
// internal/build builds it, once for all test runs, in $SPACEHOST_TEST_CACHE or the user's cache folder.
func testPython(t testing.TB) string { return testPythonOf(t, "v6") }

// testPythonOf returns an interpreter with the Gradio of that line.
func testPythonOf(t testing.TB, line string) string {
	t.Helper()
	if given := os.Getenv("SPACEHOST_TEST_PYTHON"); given != "" && line == "v6" {
		return given
	} else if given != "" {
		t.Skipf("SPACEHOST_TEST_PYTHON names an interpreter for gradio %s, none for %s", testGradio, gradios[line])
	}
	python, err := builtPythons[line]()
	if err != nil {
		t.Fatalf("no Python with gradio %s (set SPACEHOST_TEST_PYTHON to one that has %s): %v", gradios[line], testGradio, err)
	}
	return python
}

// builtPythons contains an interpreter for each line, built on first use.
var builtPythons = func() map[string]func() (string, error) {
	all := map[string]func() (string, error){}
	for line, gradio := range gradios {
		all[line] = sync.OnceValues(func() (string, error) { return buildPython(gradio) })
	}
	return all
}()

func buildPython(gradio string) (string, error) {
	cache, err := buildtest.Cache()
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(proctreetest.Root, "bare-space-") // without requirements: only gradio and spaces
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	builder := build.New(build.Config{Dir: filepath.Join(cache, "environments"), LogPath: filepath.Join(proctreetest.Root, "build.log")})
	env, err := builder.Build(ctx, build.Spec{Gradio: gradio, Dir: folder})
	if err != nil {
		return "", err
	}
	return env.Python, nil
}

// The runner's own tests need only Python 3.10 or later.
func TestRunnerInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import sys; sys.exit(sys.version_info < (3, 10))").Run() != nil {
		python = testPython(t)
	}
	cmd := exec.Command(python, "-B", "-W", "error", "-m", "unittest", "discover", "-s", "tests")
	cmd.Dir, cmd.Env = "runner", append(os.Environ(), "PYTHONPATH=.")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nOK\n") || strings.Contains(string(out), "Ran 0 tests") {
		t.Errorf("%v\n%s", err, out)
	}
}

// pythonEnv is the complete environment of a test app.
func pythonEnv(t testing.TB, python string, more ...string) []string {
	t.Helper()
	home := tempDir(t)
	return append([]string{
		"PATH=" + filepath.Dir(python) + ":" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "PYTHONUNBUFFERED=1",
		"SYSTEM=spaces", "SPACE_ID=local/test", "GRADIO_ANALYTICS_ENABLED=False", "GRADIO_TEMP_DIR=" + filepath.Join(home, "gradio"),
		"HF_HUB_OFFLINE=1", "NO_PROXY=127.0.0.1,localhost,::1", "no_proxy=127.0.0.1,localhost,::1",
	}, more...)
}

// appDir returns the folder of a test app.
func appDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("testdata", "apps", name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// startApp starts a test app with the real runner.
func startApp(t testing.TB, name string, change ...func(*ProcessConfig)) (*Process, *recorder) {
	t.Helper()
	return startAppOn(t, testPython(t), name, change...)
}

// startAppOn starts a test app on that interpreter.
func startAppOn(t testing.TB, python, name string, change ...func(*ProcessConfig)) (*Process, *recorder) {
	t.Helper()
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	env := pythonEnv(t, python)
	p, r := startFake(t, "", "", append([]func(*ProcessConfig){func(c *ProcessConfig) {
		c.Python, c.Runner, c.Env, c.Dir, c.Port = python, runnerDir, env, appDir(t, name), port
	}}, change...)...)
	t.Cleanup(func() {
		if t.Failed() {
			for _, line := range p.Tail() {
				t.Logf("%s printed: %.300s", name, line)
			}
		}
	})
	return p, r
}

// awaitLine waits for a line that begins with prefix, and returns the rest of it.
func (r *recorder) awaitLine(t testing.TB, p *Process, prefix string) (rest string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the app prints %q", prefix), func() bool {
		for _, line := range r.printed() {
			if after, ok := strings.CutPrefix(line, prefix); ok {
				rest = after
				return true
			}
		}
		select {
		case <-p.Done():
			t.Fatalf("the app has ended without %q: %v", prefix, p.Err())
		default:
		}
		return false
	})
	return rest
}
