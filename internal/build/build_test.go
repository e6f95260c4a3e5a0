package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"
)

func TestEnvironmentIsCached(t *testing.T) {
	t.Parallel()
	seen := &steps{}
	b := New(Config{Dir: stateDir(t), Progress: seen.add})
	spec := Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{
		"pre-requirements.txt": "pluggy",
		"requirements.txt":     "# what the app needs\niniconfig\n-r more.txt\n",
		"more.txt":             "gradio\n",
		"packages.txt":         "ffmpeg\nlibsm6 # for opencv\n",
		"uv.toml":              "index-url = 'http://127.0.0.1:1/simple'\n",
		"queue.py":             "raise SystemExit('the Space was imported by a tool')",
	})}

	first := build(t, b, spec, false)
	if first.Gradio != "99.1.0" || first.Spaces != "99.0.0" || first.Cached || !strings.HasPrefix(first.PythonVersion, "3.") {
		t.Errorf("first build = %+v, want gradio 99.1.0 and spaces 99.0.0, not cached", first)
	}
	want := []string{"packages.txt lists Debian packages, which spacehost does not install: ffmpeg, libsm6; install the missing ones with apt",
		untestedWarning(first)} // the sample releases are newer
	if !reflect.DeepEqual(first.Warnings, want) {
		t.Errorf("Warnings = %q, want %q", first.Warnings, want)
	}
	python(t, first, "import pluggy, iniconfig, uvicorn, websockets, pip")
	checkSteps(t, seen, first.PythonVersion)
	checkLog(t, first.LogPath)

	before := len(seen.texts(Started))
	again := build(t, b, spec, false)
	if !again.Cached || again.Dir != first.Dir || !reflect.DeepEqual(again.Warnings, want) || len(seen.texts(Started)) != before {
		t.Errorf("second build = %+v with steps %q, want the first one's, cached, without steps", again, seen.texts(Started))
	}
	checkLog(t, again.LogPath)
}

func python(t *testing.T, env *Environment, code string) {
	t.Helper()
	if out, err := exec.Command(env.Python, "-I", "-c", code).CombinedOutput(); err != nil {
		t.Errorf("python -c %q: %v\n%s", code, err, out)
	}
}

func checkSteps(t *testing.T, seen *steps, version string) {
	t.Helper()
	texts := []string{"creating an environment with Python " + version, "installing pre-requirements.txt",
		"installing gradio 99.1.0 and spaces", "installing requirements.txt", "checking the environment"}
	started := seen.texts(Started)
	if len(started) == 6 { // the first run on a machine without uv
		texts = append([]string{"installing uv " + uvVersion}, texts...)
	}
	var want []string
	for i, text := range texts {
		want = append(want, fmt.Sprintf("%d/%d %s", i+1, len(texts), text))
	}
	if !reflect.DeepEqual(started, want) || !reflect.DeepEqual(seen.texts(Finished), want) {
		t.Errorf("started  %q\nfinished %q\nwant     %q", started, seen.texts(Finished), want)
	}
	for _, s := range seen.all {
		if (s.Took > 0) != (s.State == Finished) {
			t.Errorf("step %+v: want a duration only when it is finished", s)
		}
	}
}

func checkLog(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "# installing requirements.txt\n$ ") || !strings.Contains(string(text), "iniconfig==") {
		t.Errorf("log %s (%v) lacks the installation:\n%s", path, err, text)
	}
}

func TestEnvironmentIsRebuilt(t *testing.T) {
	t.Parallel()
	b := New(Config{Dir: stateDir(t)})
	dir := spaceDir(t, map[string]string{"requirements.txt": "iniconfig"})
	spec := Spec{Gradio: "99.1.0", Dir: dir}
	first := build(t, b, spec, false)

	second := build(t, b, spec, true)
	if second.Cached || second.Dir != first.Dir+"-2" {
		t.Errorf("rebuild = %+v, want a new environment in %s-2", second, first.Dir)
	}
	python(t, first, "import gradio, iniconfig") // a Space may still run from it
	python(t, second, "import gradio, iniconfig")
	again := build(t, b, spec, false)
	if !again.Cached || again.Dir != second.Dir {
		t.Errorf("build after a rebuild = %+v, want %s, cached", again, second.Dir)
	}

	again.Release()
	second.Release()
	mark := filepath.Join(second.Dir, "mark")
	writeFiles(t, second.Dir, map[string]string{"mark": ""})
	if err := os.Remove(filepath.Join(second.Dir, stampName)); err != nil { // as if the build had been killed
		t.Fatal(err)
	}
	if again := build(t, b, spec, false); again.Dir != first.Dir {
		t.Errorf("after an unfinished rebuild: %s, want the finished %s", again.Dir, first.Dir)
	}
	if again := build(t, b, spec, true); again.Cached || again.Dir != second.Dir || exists(mark) {
		t.Errorf("a rebuild after an unfinished one: %+v, mark exists: %t; want a new environment in %s", again, exists(mark), second.Dir)
	}

	writeFiles(t, dir, map[string]string{"requirements.txt": "iniconfig\npluggy"})
	if other := build(t, b, spec, false); other.Cached || other.Dir == first.Dir {
		t.Errorf("with other requirements: %+v, want another environment than %s", other, first.Dir)
	}
}

func TestRequirementsPinGradioWithoutSDKVersion(t *testing.T) {
	t.Parallel()
	b := New(Config{Dir: stateDir(t)})
	if env := build(t, b, Spec{Dir: spaceDir(t, map[string]string{"requirements.txt": "gradio==99.1.0"})}, false); env.Gradio != "99.1.0" {
		t.Errorf("pinned: gradio %s, want 99.1.0", env.Gradio)
	}
	if env := build(t, b, Spec{Dir: spaceDir(t, map[string]string{"requirements.txt": "gradio<99.2"})}, false); env.Gradio != "99.1.0" {
		t.Errorf("bounded: gradio %s, want 99.1.0", env.Gradio)
	}
}

func TestPipIsUsedWithoutUV(t *testing.T) {
	t.Parallel()
	if uv, err := exec.LookPath("uv"); err == nil {
		t.Skipf("uv is on PATH (%s), so there is no fallback to pip", uv)
	}
	core, logs := observer.New(zap.WarnLevel)
	b := New(Config{Dir: pipDir(t), Logger: zap.New(core)})
	env := build(t, b, Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{"requirements.txt": "iniconfig"})}, false)
	if env.Gradio != "99.1.0" || env.Spaces != "99.0.0" {
		t.Errorf("env = %+v, want gradio 99.1.0 and spaces 99.0.0", env)
	}
	python(t, env, "import iniconfig, uvicorn, pip")
	if logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "continuing with pip") {
		t.Errorf("warnings %v, want one about the use of pip", logs.All())
	}
	text, _ := os.ReadFile(env.LogPath)
	if !strings.Contains(string(text), "uv could not be installed") {
		t.Errorf("the log does not explain why uv is missing:\n%s", text)
	}
	checkPipFailure(t, env)
}

// checkPipFailure reuses an existing environment: creating another with pip would take long.
func checkPipFailure(t *testing.T, env *Environment) {
	t.Helper()
	j, err := New(Config{Dir: t.TempDir()}).newJob(Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{"requirements.txt": "nosuchpackage-xyz"})})
	if err != nil {
		t.Fatal(err)
	}
	defer j.output.Close()
	if err := j.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.tool, j.home = pipInstaller(), env.Dir
	err = j.runSteps(t.Context(), []step{{"installing requirements.txt", requirements, j.installRequirements}})
	if err == nil || !strings.HasPrefix(err.Error(), noPackage) {
		t.Errorf("got  %v\nwant %s", err, noPackage)
	}
}

const noPackage = `requirements.txt: no package "nosuchpackage-xyz" was found in the index; correct its name or version (log: `

func TestMissingUVIsInstalled(t *testing.T) {
	t.Parallel()
	if uv, err := exec.LookPath("uv"); err == nil {
		t.Skipf("uv is on PATH (%s), so none is installed", uv)
	}
	j := testJob(t, t.TempDir())
	if err := j.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, j.uvHome(), map[string]string{"bin/uv": "#!/bin/sh\nexit 1\n"}) // an interrupted installation
	if err := j.installUV(t.Context()); err != nil {
		t.Fatal(err)
	}
	uv, ok := j.findUV(t.Context())
	if !ok || uv != filepath.Join(j.dir, "tools", "uv-"+uvVersion, "bin", "uv") {
		t.Errorf("findUV = %s, %t; want the one in tools", uv, ok)
	}
	out, err := exec.Command(uv, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "uv "+uvVersion) {
		t.Errorf("uv --version = %q, %v; want %s", out, err, uvVersion)
	}
}

func TestPackagedUVIsUsed(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"packaged/uv": "#!/bin/sh\n", "path/uv": "#!/bin/sh\n", "broken/uv": "#!/bin/sh\nexit 1\n"})
	for _, c := range []struct{ path, packaged, want string }{
		{"path", "packaged", "path"}, {"empty", "packaged", "packaged"}, {"broken", "packaged", "packaged"}, {"empty", "broken", ""}, {"empty", "empty", ""},
	} {
		t.Setenv("PATH", filepath.Join(dir, c.path))
		j := testJob(t, t.TempDir())
		j.config.UV = filepath.Join(dir, c.packaged, "uv")
		want := ""
		if c.want != "" {
			want = filepath.Join(dir, c.want, "uv")
		}
		if got, ok := j.findUV(t.Context()); got != want || ok != (want != "") {
			t.Errorf("PATH %s, packaged %s: findUV = %q, %t; want %q", c.path, c.packaged, got, ok, want)
		}
	}
}

func TestFailuresAreExplained(t *testing.T) {
	t.Parallel()
	rows := []struct{ name, requirements, want string }{
		{"package", "nosuchpackage-xyz", noPackage},
		{"gradio", "gradio==99.2.0", `requirements.txt requires "gradio==99.2.0", but sdk_version in README.md is 99.1.0; remove that line, or change sdk_version (log: `},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir, seen := stateDir(t), &steps{}
			_, err := New(Config{Dir: dir, Progress: seen.add}).Build(t.Context(),
				Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{"requirements.txt": row.requirements})})
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Fatalf("got  %v\nwant %s", err, row.want)
			}
			checkNothingLeft(t, dir)
			if failed := seen.texts(Failed); len(failed) != 1 || !strings.HasSuffix(failed[0], "installing requirements.txt") {
				t.Errorf("failed steps %q, want the step of requirements.txt", failed)
			}
		})
	}
}

func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(filepath.Join(dir, "environments"))
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestGradioThatDoesNotImport(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Dir: stateDir(t)}).Build(t.Context(), Spec{Gradio: "99.3.0"})
	want := "gradio and spaces are installed but cannot be imported: ModuleNotFoundError: No module named 'huggingface_hub_of_old'; pin"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestWithoutNetwork(t *testing.T) {
	t.Setenv("UV_INDEX_URL", "http://127.0.0.1:1/simple")
	t.Setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
	t.Setenv("UV_HTTP_RETRIES", "0")
	dir := stateDir(t)
	_, err := New(Config{Dir: dir}).Build(t.Context(), Spec{Gradio: "99.1.0"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1 cannot be reached; check the network") {
		t.Errorf("got %v, want an error about the network", err)
	}
	checkNothingLeft(t, dir)
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=5m"); err != nil {
		t.Skipf("mounting a small disk is not permitted: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := os.Symlink(filepath.Join(cache(t), "tools"), filepath.Join(dir, "tools")); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Dir: dir}).Build(t.Context(), Spec{Gradio: "99.1.0"})
	if err == nil || !strings.HasPrefix(err.Error(), "a disk is full; free disk space where environments ("+dir+")") {
		t.Errorf("got %v, want an error about the disk", err)
	}
	checkNothingLeft(t, dir)
}

// slowPackage is a Space whose requirement never finishes building. It blocks in a child of setup.py, and writes both
// pids to the file pids.
func slowPackage(t *testing.T) string {
	return spaceDir(t, map[string]string{"requirements.txt": "./slow", "slow/setup.py": `
import os, pathlib, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
here = pathlib.Path(os.environ["TMPDIR"], "pids")
here.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
here.with_suffix(".new").rename(here)
child.wait()
`})
}

func TestCancelKillsProcessGroup(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	pids, dir, space := filepath.Join(temporary, "pids"), stateDir(t), slowPackage(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the user pressed Ctrl-C")
	done := make(chan error, 1)
	go func() {
		_, err := New(Config{Dir: dir}).Build(ctx, Spec{Gradio: "99.1.0", Dir: space})
		done <- err
	}()
	eventually(t, "setup.py to run", func() bool { return exists(pids) })
	cancel(reason)
	if err := <-done; !errors.Is(err, reason) {
		t.Errorf("Build = %v, want the reason of the cancellation", err)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(text)) {
		if alive(pid) {
			t.Errorf("process %s outlived the build", pid)
		}
	}
	checkNothingLeft(t, dir)
}

// alive treats a zombie as exited.
func alive(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestHostsShareFolder(t *testing.T) {
	t.Parallel()
	dir, spec := stateDir(t), Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{"requirements.txt": "iniconfig"})}
	made := make([]*Environment, 4)
	var group errgroup.Group
	for i := range made {
		group.Go(func() (err error) {
			made[i], err = New(Config{Dir: dir}).Build(t.Context(), spec)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, env := range made {
		if !env.Cached {
			fresh++
		}
		if env.Dir != made[0].Dir {
			t.Errorf("environments %s and %s, want one", env.Dir, made[0].Dir)
		}
	}
	if fresh != 1 {
		t.Errorf("%d of 4 builds made the environment, want 1", fresh)
	}
}

func TestLockOutlivesKilledHostWhileItsToolRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	host := exec.Command(os.Args[0])
	host.Env = append(os.Environ(), hostIn+"="+dir)
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host's tool to start", func() bool { return exists(filepath.Join(dir, "running")) })
	host.Process.Kill()
	host.Wait()

	impatient, cancel := context.WithTimeout(t.Context(), 3*lockRetry)
	defer cancel()
	path, waited := filepath.Join(dir, "x.lock"), 0
	if _, err := lockFile(impatient, path, func() { waited++ }); !errors.Is(err, context.DeadlineExceeded) || waited != 1 {
		t.Errorf("lockFile = %v, busy called %d times, while the orphan runs; want once", err, waited)
	}
	writeFiles(t, dir, map[string]string{"gate": ""})
	again, err := lockFile(t.Context(), path, func() {})
	if err != nil {
		t.Fatalf("lockFile after the orphan exited: %v", err)
	}
	again.release()
}

// hostIn names the folder in which this test binary acts as a host that holds a lock and runs a tool.
const hostIn = "SPACEHOST_TEST_HOST_IN"

func runAsHost(dir string) error {
	j, err := New(Config{Dir: dir}).newJob(Spec{})
	if err != nil {
		return err
	}
	if _, err := j.acquireLock(context.Background(), filepath.Join(dir, "x.lock")); err != nil {
		return err
	}
	return j.run(context.Background(), "sh", "-c", "touch running; while [ ! -e gate ]; do sleep 0.02; done")
}

func TestFolderCannotBeCreated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"environments": "a file"})
	_, err := New(Config{Dir: dir}).Build(t.Context(), Spec{})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Hint != "make "+dir+" a writable folder" {
		t.Errorf("got %v, want an *Error about %s", err, dir)
	}
}

func TestLogIsAppended(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs", "all.log")
	writeFiles(t, filepath.Dir(path), map[string]string{"all.log": "earlier\n"})
	env := build(t, New(Config{Dir: stateDir(t), LogPath: path}), Spec{Gradio: "99.1.0"}, false)
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), "earlier\n# ") || env.LogPath != path {
		t.Errorf("log %s (%v) = %q..., want it appended", env.LogPath, err, text[:min(len(text), 40)])
	}
}

func TestStampNeedsExistingPython(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := writeStamp(home, &Environment{Python: pythonIn(home), Gradio: "6.0.0", Dir: home}); err != nil {
		t.Fatal(err)
	}
	for _, there := range []bool{false, true} {
		if there {
			writeFiles(t, home, map[string]string{"bin/python": ""})
		}
		if got, ok := readStamp(home); ok != there || got.Gradio != "6.0.0" {
			t.Errorf("readStamp = %+v, %t; want %t", got, ok, there)
		}
	}
}

// TestStampOfAPackage: a package that writes the stamp, or a link in its place, gains no access to other folders.
func TestStampOfAPackage(t *testing.T) {
	t.Parallel()
	home, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	writeFiles(t, home, map[string]string{"bin/python": "", stampName: `{"python": "/bin/sh", "dir": "/"}`})
	if got, ok := readStamp(home); !ok || got.Dir != home || got.Python != pythonIn(home) {
		t.Errorf("readStamp = %+v, %t; want the paths of %s", got, ok, home)
	}
	for _, name := range []string{stampName, stampName + ".new"} {
		os.Remove(filepath.Join(home, name))
		if err := os.Symlink(outside, filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeStamp(home, &Environment{Gradio: "6.0.0"}); err != nil || exists(outside) {
		t.Errorf("writeStamp = %v, wrote through a link: %t", err, exists(outside))
	}
	if got, ok := readStamp(home); !ok || got.Gradio != "6.0.0" {
		t.Errorf("readStamp = %+v, %t; want the new stamp", got, ok)
	}
}
