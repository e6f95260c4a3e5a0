package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSharedRequirements lists the lines with which two Spaces share an environment: those that mean the same in every
// folder.
func TestSharedRequirements(t *testing.T) {
	shared := []string{
		"", "# nothing", "six", "Foo_Bar.baz", "six==1.16.0", "six >= 1.0, != 1.5 ,<2", "six (>=1.0)", "six===1.16.0", "torch==2.8.0+cu128", "six~=1.4.0,", "six==1.*",
		"gradio[oauth,mcp]>=5", "gradio [oauth]", "six ; python_version < '3.12' and platform_system == \"Linux\"", "six; extra == 'a-b'", "  six  # a comment with ./helper",
		"six==1.16.0 --hash=sha256:00ff --hash=sha256:11", "six==1.16.0 \\\n    --hash=sha256:00ff", "six>=1 ; python_version > '3' --hash=sha256:00ff",
		"-r more.txt", "-rmore.txt", "--requirement=sub/nested.txt", "-c sub/../more.txt", "six\r\npluggy\r\n", "# 中文\u2028./helper\nsix", "\t\n",
	}
	alone := []string{
		"./helper", ".", "-e .", "-e ./helper", "../helper", "/srv/helper", "--editable=../x", "helper/", "helper/wheel.whl", "helper.zip", "helper.tar.gz", "helper-1.0-py3-none-any.whl", "helper.WHL[extra]",
		"file:///x", "x @ file:///x", "x @ ./helper", "git+https://h/x", "-e git+https://h/x", "x @ git+https://h/x", "https://h/x.whl", "x@https://h/x.whl",
		"-i https://h/simple", "--index-url https://h/simple", "--extra-index-url https://h/simple\nsix", "--find-links ./wheels\nhelper", "-f wheels", "--no-index", "--pre", "--no-binary :all:", "--trusted-host h",
		"six --config-settings=a=b", "six --global-option=x", "six; python_version > '3' --index-url=x", "six==1 -e", "--hash=sha256:00",
		"-r ../other.txt", "-r /etc/hostname", "-r gone.txt", "-c https://h/c.txt", "-r helper.txt", "-r sub/bad.txt", "-r requirements.txt ./helper",
		"${NAME}", "six==${VERSION}", "six\u2028./helper", "six\x0b./helper", "\ufeffsix", "six\r./helper", "six\x00", "sïx", "six \\\n./helper", "six \\", "six # \\\n./helper", "six==", "six six",
		"# " + strings.Repeat("x", maxFile),
	}
	for want, texts := range map[bool][]string{true: shared, false: alone} {
		for _, text := range texts {
			if got := isShared(t, requirements, text); got != want {
				t.Errorf("%.60q in two Spaces: shared %t, want %t", text, got, want)
			}
		}
	}
	if isShared(t, preRequirements, "./helper") || !isShared(t, preRequirements, "pip") {
		t.Error("pre-requirements.txt is judged otherwise than requirements.txt")
	}
}

// isShared reports whether two Spaces with this file get the same key.
func isShared(t *testing.T, file, text string) bool {
	t.Helper()
	keys := map[string]bool{}
	for range 2 {
		dir := spaceDir(t, map[string]string{
			file: text, "more.txt": "six\n", "sub/nested.txt": "-c ../more.txt\n", "helper.txt": "./helper", "sub/bad.txt": "-r ../helper.txt",
		})
		in, err := readInputs(Spec{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		keys[in.key()] = true
	}
	return len(keys) == 1
}

// TestSpacesOfOneFolderAreApart: the name of a Space counts, too.
func TestSpacesOfOneFolderAreApart(t *testing.T) {
	key := func(dir, name string) string {
		in, err := readInputs(Spec{Dir: dir, Space: name})
		if err != nil {
			t.Fatal(err)
		}
		return in.key()
	}
	own, plain := spaceDir(t, map[string]string{requirements: "./helper"}), spaceDir(t, map[string]string{requirements: "six"})
	if key(own, "a") == key(own, "b") {
		t.Error("two Spaces with ./helper share a key")
	}
	if key(plain, "a") != key(plain, "b") {
		t.Error("two Spaces with a plain file have different keys")
	}
}

// TestSameTextOtherCode builds two Spaces whose requirement files have the same text and name a package of their own.
func TestSameTextOtherCode(t *testing.T) {
	t.Parallel()
	b := New(Config{Dir: stateDir(t)})
	for _, owner := range []string{"ann", "ben"} {
		dir := spaceDir(t, map[string]string{
			requirements: "helper.zip\n", "helper/setup.py": "from setuptools import setup\nsetup(name='helper', version='1.0', py_modules=['helper'])\n",
			"helper/helper.py": fmt.Sprintf("owner = %q\n", owner),
		})
		if out, err := exec.Command("python3", "-c", "import shutil, sys; shutil.make_archive(sys.argv[1], 'zip', sys.argv[1])", filepath.Join(dir, "helper")).CombinedOutput(); err != nil {
			t.Fatalf("make the archive: %v\n%s", err, out)
		}
		env := build(t, b, Spec{Gradio: "99.1.0", Dir: dir}, false)
		python(t, env, fmt.Sprintf("import helper; assert helper.owner == %q, helper.owner", owner))
	}
}

// TestFilesChangedDuringBuild: an environment that is shared contains what its key says, although the Space's files
// change before they are installed.
func TestFilesChangedDuringBuild(t *testing.T) {
	t.Parallel()
	dir := spaceDir(t, map[string]string{preRequirements: "pluggy", requirements: "# all\n-r sub/more.txt\n", "sub/more.txt": "iniconfig\n"})
	b := New(Config{Dir: stateDir(t), Progress: func(s Step) {
		if s.State == Started {
			writeFiles(t, dir, map[string]string{preRequirements: "sortedcontainers", requirements: "sortedcontainers", "sub/more.txt": "sortedcontainers"})
		}
	}})
	env := build(t, b, Spec{Gradio: "99.1.0", Dir: dir}, false)
	python(t, env, "import importlib.util as u, pluggy, iniconfig; assert u.find_spec('sortedcontainers') is None")
}

// TestEnvironmentsAreCopies: a file that an environment shares with uv's cache would change in every later environment,
// when a Space writes to it.
func TestEnvironmentsAreCopies(t *testing.T) {
	cached := t.TempDir() // on the file system of the environment, where uv could link
	t.Setenv("UV_CACHE_DIR", cached)
	t.Setenv("UV_LINK_MODE", "hardlink")
	env := build(t, New(Config{Dir: stateDir(t)}), Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{requirements: "iniconfig"})}, false)
	links, files := "", 0
	err := filepath.WalkDir(env.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if files++; info.Sys().(*syscall.Stat_t).Nlink > 1 {
			links += path + "\n"
		}
		return err
	})
	if entries, missing := os.ReadDir(cached); errors.Join(err, missing) != nil || files < 100 || len(entries) == 0 {
		t.Fatalf("%d files, cache %v (%v)", files, entries, errors.Join(err, missing))
	}
	if links != "" {
		t.Errorf("files with more than one link:\n%s", links)
	}
}
