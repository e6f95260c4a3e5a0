package host

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
	"spacehost/internal/config"
	"spacehost/internal/feature/featuretest"
)

// canary is the content of everything that a build must not read.
const canary = "canary-4711"

// hostileSetup tries to read and to write everything that its plan names, and reports to the folder of the environment.
const hostileSetup = `
import glob, json, os, pathlib, socket
from setuptools import setup
plan = json.loads(%q)
report = {"environ": dict(os.environ), "read": {}, "wrote": [], "connected": [], "processes": {}}
for path in plan["read"] + ["/proc/%%d/environ" %% plan["host"], "/proc/1/environ", "/proc/self/environ"]:
    try:
        report["read"][path] = pathlib.Path(path).read_text(errors="replace")
    except OSError as error:
        report["read"][path] = repr(error)
for folder in plan["write"]:
    try:
        pathlib.Path(folder, "planted").write_text("planted")
        report["wrote"].append(folder)
    except OSError:
        pass
for root, _, names in os.walk(os.environ.get("UV_CACHE_DIR", "/nonexistent")):
    for name in [name for name in names if name.endswith(".py")]:
        try:
            with open(os.path.join(root, name), "a") as file:
                file.write("# planted")
        except OSError:
            pass
for host, port in plan["connect"]:
    try:
        socket.create_connection((host, port), timeout=3).recv(1)  # a refused connection is reset
        report["connected"].append([host, port])
    except OSError:
        pass
try:
    report["listed"] = os.listdir(plan["environments"])
except OSError:
    report["listed"] = []
for line in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        words = pathlib.Path(line).read_text().split("\0")
        for python in words:
            if python.startswith(plan["environments"]) and python.endswith("/bin/python"):
                pathlib.Path(python).parent.with_name("report.json").write_text(json.dumps(report))
    except OSError:
        pass
setup(name="helper", version="1.0", py_modules=[])
`

// buildReport is what hostileSetup has found out.
type buildReport struct {
	Environ   map[string]string
	Read      map[string]string
	Wrote     []string // at level namespaces also to a layer, or to a folder of the sandbox itself
	Connected [][]any
	Listed    []string
}

// buildHost is a host with one Space, and a home folder with canaries.
type buildHost struct {
	*Host
	t     *testing.T
	home  string
	index *buildtest.Index
	dir   string // of packages in the index
}

// newBuildHost returns a host with a Space for each set of files.
func newBuildHost(t *testing.T, level config.Isolation, spaces ...map[string]string) *buildHost {
	t.Helper()
	b := &buildHost{t: t, home: t.TempDir(), dir: t.TempDir()}
	if err := buildtest.SDK(b.dir); err != nil {
		t.Fatal(err)
	}
	b.index = buildtest.NewIndex(b.dir)
	t.Cleanup(b.index.Close)
	tools := keepTools(t)
	b.plant(".ssh/id_ed25519", ".cache/uv/private", ".netrc")
	t.Setenv("HOME", b.home)
	t.Setenv("PATH", withoutRustup()) // pip asks rustc for its version, and that of rustup writes settings to the home folder
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("UV_INDEX", strings.Replace(b.index.Address(), "http://", "http://reader:"+canary+"@", 1))
	t.Setenv("UV_FIND_LINKS", "")
	t.Setenv("PIP_EXTRA_INDEX_URL", b.index.Address())
	t.Setenv("SECRET_OF_THE_HOST", canary)
	t.Setenv("SPACEHOST_ENVIRONMENTS", "")
	state, err := os.MkdirTemp("", "builds") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	if err := os.MkdirAll(filepath.Join(state, "environments"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tools, filepath.Join(state, "environments", "tools")); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, files := range spaces {
		dirs = append(dirs, writeBuildSpace(t, files))
	}
	b.Host = openBuildHost(t, state, level, dirs...)
	return b
}

// withoutRustup returns PATH without the folders of rustup.
func withoutRustup() string {
	folders := slices.DeleteFunc(filepath.SplitList(os.Getenv("PATH")), func(folder string) bool {
		_, err := os.Stat(filepath.Join(folder, "rustup"))
		return err == nil
	})
	return strings.Join(folders, string(os.PathListSeparator))
}

// keepTools returns the folder of uv that test runs share. It is called before HOME changes.
func keepTools(t *testing.T) string {
	t.Helper()
	cache, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	tools := filepath.Join(cache, "tools")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	return tools
}

func writeBuildSpace(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	all := map[string]string{"README.md": "---\nsdk: gradio\nsdk_version: 99.1.0\n---\n", "app.py": ""}
	maps.Copy(all, files)
	for name, text := range all {
		writeFile(t, filepath.Join(dir, name), text)
	}
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openBuildHost(t *testing.T, state string, level config.Isolation, dirs ...string) *Host {
	t.Helper()
	settings := config.Settings{
		State: state, Console: config.Setting{Value: "127.0.0.1:0"}, GPUs: config.Setting{Value: "mock:1xH200"}, Hardware: config.Setting{Value: gpu.AutoHardware},
		Preset: config.Setting{Value: "2026-04"}, LocalTier: config.Setting{Value: "free"}, Share: 1, QueueTimeout: time.Minute, IdentityMode: "direct",
	}
	for i, dir := range dirs {
		settings.Spaces = append(settings.Spaces, config.SpaceSettings{
			Name: fmt.Sprintf("demo%d", i), Dir: dir, Addr: config.Setting{Value: "127.0.0.1:0"}, Visibility: config.Public,
			IsolationSettings: config.IsolationSettings{Isolation: level},
		})
	}
	h, err := New(settings, t.Output(), t.Output())
	if err != nil {
		featuretest.Missing(t, "no %s", "level "+level.String()+": "+err.Error())
	}
	t.Cleanup(h.Close)
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }) // New made this process a subreaper
	return h
}

func (b *buildHost) plant(names ...string) {
	for _, name := range names {
		writeFile(b.t, filepath.Join(b.home, name), canary)
	}
}

// build builds the environment of a Space.
func (b *buildHost) build(s *spaceRun) *build.Environment {
	b.t.Helper()
	if err := s.build(b.t.Context()); err != nil {
		log, _ := os.ReadFile(b.state.path("logs", "build-"+s.space().Name+".log"))
		b.t.Fatalf("build: %v\n%s", err, log)
	}
	return s.env()
}

// log returns the build log of a Space.
func (b *buildHost) log(s *spaceRun) string {
	b.t.Helper()
	text, err := os.ReadFile(b.state.path("logs", "build-"+s.space().Name+".log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// eachLevel runs a test at the levels that confine builds.
func eachLevel(t *testing.T, test func(t *testing.T, level config.Isolation)) {
	for _, level := range []config.Isolation{config.IsolationFiles, config.IsolationNamespaces} {
		t.Run(level.String(), func(t *testing.T) { test(t, level) })
	}
}

// TestHostileBuild builds a package whose setup.py attacks the host. It gains nothing, and the build succeeds.
func TestHostileBuild(t *testing.T) {
	eachLevel(t, func(t *testing.T, level config.Isolation) {
		b := newBuildHost(t, level, map[string]string{"requirements.txt": "./helper\n"})
		space := b.all()[0]
		source := []string{space.space().Dir}
		if level == config.IsolationFiles {
			source = nil // a Space at this level may change its folder
		}
		hits, port := countConnections(t)
		neighbour := b.state.path("environments", "environments", "0123456789abcdef")
		shared := b.state.path("environments", "cache", "uv")
		for _, path := range []string{filepath.Join(neighbour, "secret"), filepath.Join(shared, "wheel"), b.state.path("keys", "canary.key"), b.state.path("spaces", "other", "home", "x")} {
			writeFile(t, path, canary)
		}
		targets := []string{b.home, filepath.Join(b.home, ".cache", "uv"), b.state.dir, neighbour, shared, b.state.path("runner")}
		plan, err := json.Marshal(map[string]any{
			"host": os.Getpid(), "environments": filepath.Dir(neighbour),
			"read": []string{
				filepath.Join(b.home, ".ssh", "id_ed25519"), filepath.Join(b.home, ".cache", "uv", "private"), filepath.Join(b.home, ".netrc"),
				b.state.path("spacehost.db"), b.state.path("keys", "canary.key"), b.state.path("spaces", "other", "home", "x"), filepath.Join(neighbour, "secret"),
			},
			"write":   append(targets, source...),
			"connect": [][]any{{"127.0.0.1", port}, {ownAddress(t), port}, {"10.1.2.3", 443}, {"169.254.169.254", 80}},
		})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(space.space().Dir, "helper", "setup.py"), fmt.Sprintf(hostileSetup, plan))
		kept := append([]string{b.home, neighbour, shared, b.state.path("keys"), b.state.path("spaces")}, source...)
		before := hashes(t, kept...)
		env := b.build(space)
		checkBuildReport(t, env, level, b)
		after := hashes(t, kept...)
		delete(after, referenceIn(b.state.dir, space.space().Name)) // the host has written it
		if !addsOnly(before, after, shared) {
			t.Errorf("the build has changed files:\nbefore %v\nafter  %v", before, after)
		}
		for _, folder := range append(targets, source...) {
			if _, err := os.Lstat(filepath.Join(folder, "planted")); err == nil {
				t.Errorf("the build has written to %s", folder)
			}
		}
		if text := planted(t, shared); text != "" {
			t.Errorf("the build has written to %s in the shared cache", text)
		}
		if n := hits.Load(); n != 0 {
			t.Errorf("the build has made %d connections to this machine", n)
		}
		if left, _ := filepath.Glob(b.state.path("run", buildPrefix+"*")); len(left) > 0 {
			t.Errorf("the build has left %v", left)
		}
	})
}

func checkBuildReport(t *testing.T, env *build.Environment, level config.Isolation, b *buildHost) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(env.Dir, "report.json"))
	if err != nil {
		t.Fatalf("setup.py has not run: %v", err)
	}
	if strings.Contains(string(text), canary) || strings.Contains(string(text), "SQLite format") {
		t.Errorf("the build has read a secret: %s", text)
	}
	var report buildReport
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if level == config.IsolationFiles && len(report.Wrote) > 0 {
		t.Errorf("the build could write to %q", report.Wrote)
	}
	if len(report.Connected) > 0 {
		t.Errorf("the build could connect to %v", report.Connected)
	}
	if level == config.IsolationNamespaces && !slices.Equal(report.Listed, []string{filepath.Base(env.Dir)}) {
		t.Errorf("the build sees the environments %q, want only its own", report.Listed)
	}
	if home := report.Environ["HOME"]; home == b.home || home == "" {
		t.Errorf("the build has HOME=%s", home)
	}
	if got, want := report.Environ["UV_INDEX"], b.index.Address(); got != want {
		t.Errorf("the build has UV_INDEX=%s, want the index without its password, %s", got, want)
	}
}

// planted returns a file below folder to which hostileSetup has written; "" if there is none.
func planted(t *testing.T, folder string) (found string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "planted") {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// countConnections listens at all addresses of this machine.
func countConnections(t *testing.T) (hits *atomic.Int64, port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	hits = &atomic.Int64{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return hits, l.Addr().(*net.TCPAddr).Port
}

// ownAddress returns an address of this machine other than loopback, or a loopback address without one.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.2"
}

// hashes returns the content of all files below folders, as hashes by path.
func hashes(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := sha256.New()
			_, err = io.Copy(sum, f)
			all[path] = fmt.Sprintf("%x", sum.Sum(nil)[:8])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// addsOnly reports whether nothing has changed except for new files below folder, none of them planted.
func addsOnly(before, after map[string]string, folder string) bool {
	for path, sum := range after {
		isNew := before[path] == "" && isBelow(path, folder) && filepath.Base(path) != "planted"
		if before[path] != sum && !isNew {
			return false
		}
	}
	return len(before) <= len(after)
}

// TestPlainBuildsShareACache: packages with wheels are downloaded once for all Spaces, although the newest release without a
// wheel is never replaced by an older one with a wheel.
func TestPlainBuildsShareACache(t *testing.T) {
	eachLevel(t, func(t *testing.T, level config.Isolation) {
		b := newBuildHost(t, level, map[string]string{"requirements.txt": "sample\n"}, map[string]string{"requirements.txt": "sample\npluggy\n"},
			map[string]string{"requirements.txt": "further\n"})
		for _, err := range []error{
			buildtest.Wheel(b.dir, "sample", "1.0", ""), buildtest.Wheel(b.dir, "further", "1.0", ""),
			buildtest.Source(b.dir, "further", "2.0", "from setuptools import setup\nsetup(name='further', version='2.0', py_modules=['further'])\n"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		first := b.build(b.all()[0])
		if n := b.index.Downloads("sample-1.0-py3-none-any.whl"); n == 0 {
			t.Fatal("the package does not come from the index")
		}
		if !strings.Contains(b.log(b.all()[0]), "--only-binary :all:") {
			t.Error("a package with a wheel is not installed as the host")
		}
		before := b.index.Downloads("sample-1.0-py3-none-any.whl")
		if env := b.build(b.all()[1]); env.Dir == first.Dir || !hasVersion(env, "sample", "1.0") {
			t.Errorf("environment %s, want another one than %s, with the package", env.Dir, first.Dir)
		}
		if n := b.index.Downloads("sample-1.0-py3-none-any.whl") - before; n != 0 {
			t.Errorf("the second Space has downloaded the package %d times", n)
		}
		if env := b.build(b.all()[2]); !hasVersion(env, "further", "2.0") {
			t.Errorf("the newest release of a package without a wheel is not installed:\n%s", b.log(b.all()[2]))
		}
	})
}

func hasVersion(env *build.Environment, name, version string) bool {
	found, _ := filepath.Glob(filepath.Join(env.Dir, "lib", "python*", "site-packages", name+"-"+version+".dist-info")) // well formed
	return len(found) == 1
}
