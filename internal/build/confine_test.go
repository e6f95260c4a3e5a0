package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/build/buildtest"
)

// confined is a Confinement that records the tools and runs them as the host, with the variables of a confined tool.
type confined struct {
	home, cache string
	tools       []Tool
	closed      int
}

func (c *confined) Run(ctx context.Context, tool Tool) error {
	c.tools = append(c.tools, tool)
	cmd := GroupCommand(ctx, tool.Argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = tool.Dir, tool.Stdout, tool.Stderr
	cmd.Env = append(tool.Env, "HOME="+c.home, "UV_CACHE_DIR="+c.cache)
	if err := cmd.Start(); err != nil {
		return err
	}
	return WaitGroup(ctx, cmd)
}

func (c *confined) Close() { c.closed++ }

// words returns the recorded tools in short.
func (c *confined) words() (all []string) {
	for _, tool := range c.tools {
		word := "install"
		switch line := strings.Join(tool.Argv, " "); {
		case strings.Contains(line, "--dry-run"):
			word = "resolve"
		case strings.Contains(line, "importlib"):
			word = "check"
		case strings.Contains(line, "-m pip install"):
			word = "pip"
		}
		all = append(all, word)
	}
	return all
}

// confinedBuilder returns a Builder whose index contains packages with and without wheels.
func confinedBuilder(t *testing.T) (*Builder, *confined) {
	t.Helper()
	packages := t.TempDir()
	setup := "from setuptools import setup\nsetup(name='further', version='%s', py_modules=['further'])\n"
	for _, err := range []error{
		buildtest.Wheel(packages, "sample", "1.0", ""), buildtest.Wheel(packages, "further", "1.0", ""),
		buildtest.Source(packages, "further", "2.0", fmt.Sprintf(setup, "2.0")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	index := buildtest.NewIndex(packages)
	t.Cleanup(index.Close)
	t.Setenv("UV_INDEX", index.Address())
	t.Setenv("UV_HTTP_RETRIES", "0")
	c := &confined{home: t.TempDir(), cache: t.TempDir()}
	return New(Config{Dir: stateDir(t), Confine: func() Confinement { return c }}), c
}

// TestConfinedTools lists the tools that run confined: all that may run code of the Space, and no others.
func TestConfinedTools(t *testing.T) {
	b, c := confinedBuilder(t)
	rows := []struct {
		name, pre, requirements, want string
		hostInstalls                  int // with wheels alone
	}{
		{"nothing", "", "", "check", 0},
		{"wheels", "", "sample", "resolve check", 1},
		{"no wheel of the newest release", "", "further", "resolve install check", 1},
		{"a folder", "", "./local", "install check", 0},
		{"an index of the Space", "", "--extra-index-url http://127.0.0.1:1/simple\npluggy", "install pip check", 0},
		{"a public index", "", "--extra-index-url https://pypi.org/simple\nsample", "resolve check", 1},
		{"after packages of the Space", "sample", "pluggy", "resolve install install check", 1},
		{"pip", "", "--pre\npluggy", "pip check", 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			files := map[string]string{"local/setup.py": "from setuptools import setup\nsetup(name='local', version='1.0', py_modules=[])\n"}
			for name, text := range map[string]string{preRequirements: row.pre, requirements: row.requirements} {
				if text != "" {
					files[name] = text
				}
			}
			c.tools, c.closed = nil, 0
			dir := spaceDir(t, files)
			env := build(t, b, Spec{Gradio: "99.1.0", Dir: dir, Space: row.name}, false)
			if got := strings.Join(c.words(), " "); got != row.want {
				t.Errorf("confined: %s, want %s", got, row.want)
			}
			if c.closed != 1 {
				t.Errorf("closed %d times, want once", c.closed)
			}
			log, err := os.ReadFile(env.LogPath)
			if n := strings.Count(string(log), "--only-binary :all:"); err != nil || n != row.hostInstalls {
				t.Errorf("%d installations with wheels alone (%v), want %d\n%s", n, err, row.hostInstalls, log)
			}
			checkGrants(t, c, env, dir, row.name == "a folder" || row.name == "pip" || row.name == "an index of the Space")
		})
	}
}

// checkGrants checks what the tools of a build may read and write.
func checkGrants(t *testing.T, c *confined, env *Environment, dir string, needsFolder bool) {
	t.Helper()
	for i, word := range c.words() {
		tool := c.tools[i]
		mayWrite := slices.Contains(tool.Write, env.Dir)
		if mayWrite == (word == "resolve") || mayWrite == slices.Contains(tool.Read, env.Dir) {
			t.Errorf("%s: writes %q, reads %q", word, tool.Write, tool.Read)
		}
		if hasFolder := tool.Source == dir; hasFolder != needsFolder {
			t.Errorf("%s: the Space's folder is %q, needed: %t", word, tool.Source, needsFolder)
		}
		if tool.Held == nil || tool.Cache == "" || tool.Models || slices.ContainsFunc(tool.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
			t.Errorf("%s: %+v", word, tool)
		}
	}
}

// TestConfinedSettings: a confined tool installs from the operator's indexes, and does not learn passwords or other settings.
func TestConfinedSettings(t *testing.T) {
	home := t.TempDir()
	writeFiles(t, home, map[string]string{
		".config/uv/uv.toml": "[[index]]\nurl = \"https://ann:s3cret@uv.example.com/simple\"\n", ".pip/pip.conf": "[global]\nindex-url = https://ann:s3cret@pip.example.com/simple\n",
	})
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": "", "UV_INDEX": "own=http://ann:s3cret@10.0.0.7:8081/simple", "PIP_EXTRA_INDEX_URL": "https://s3cret@a.example.com/x https://b.example.com",
		"UV_INDEX_OWN_PASSWORD": "s3cret", "PIP_CLIENT_CERT": "/s3cret", "UV_PUBLISH_TOKEN": "s3cret", "HTTPS_PROXY": "http://ann:s3cret@proxy:3128",
		"UV_FIND_LINKS": "/srv/wheels,https://links.example.com/x", "SSL_CERT_FILE": "/srv/ca.pem", "HF_TOKEN": "s3cret", "CUDA_HOME": "/",
	} {
		t.Setenv(name, value)
	}
	env, files, addresses := confinedEnv(os.Environ()), map[string]string(nil), []string(nil)
	files, addresses = indexSettings()
	if all := fmt.Sprint(env, files, addresses); strings.Contains(all, "s3cret") {
		t.Errorf("a password is passed on: %s", all)
	}
	for _, want := range []string{"UV_INDEX=own=http://10.0.0.7:8081/simple", "PIP_EXTRA_INDEX_URL=https://a.example.com/x https://b.example.com"} {
		if !slices.Contains(env, want) {
			t.Errorf("variables %q lack %s", env, want)
		}
	}
	for _, want := range []string{"https://uv.example.com/simple", "https://pip.example.com/simple", "http://10.0.0.7:8081/simple", "https://b.example.com", "https://links.example.com/x"} {
		if !slices.Contains(addresses, want) {
			t.Errorf("addresses %q lack %s", addresses, want)
		}
	}
	for path, want := range map[string]bool{"/srv/wheels": true, "/srv/ca.pem": true, "/": false, "//links.example.com/x": false} {
		if got := slices.Contains(namedPaths(), path); got != want {
			t.Errorf("namedPaths() = %q, contains %s: %t, want %t", namedPaths(), path, got, want)
		}
	}
}

func TestPinsOfAPlan(t *testing.T) {
	plan := "Would install 3 packages\n + torch==2.8.0+cu128\n + a.b-c==1!2.0rc1\n + local==1.0 (from file:///x)\n ~ other==1.0\n + x==1 -r /etc/passwd\n+ y==1\n"
	if got := string(pinsOf(plan)); got != "torch==2.8.0+cu128\na.b-c==1!2.0rc1\n" {
		t.Errorf("got %q", got)
	}
}

// stuck is a Confinement whose tool never ends.
type stuck struct{}

func (stuck) Run(ctx context.Context, _ Tool) error { <-ctx.Done(); return &exec.ExitError{} }
func (stuck) Close()                                {}

// TestTimeLimitOfABuild: all confined tools of a build have 30 minutes together.
func TestTimeLimitOfABuild(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j, err := New(Config{Dir: dir, Confine: func() Confinement { return stuck{} }}).newJob(Spec{Gradio: "99.1.0"})
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		j.folders, j.confinedTime = []string{"/usr"}, 10*time.Minute
		began := time.Now()
		err = j.runSteps(t.Context(), []step{{"installing requirements.txt", requirements, func(ctx context.Context) error {
			_, err := j.runTo(ctx, install, j.output, "uv")
			return err
		}}})
		if took := time.Since(began); took != 20*time.Minute {
			t.Errorf("took %s, want the 20 minutes that are left", took)
		}
		want := "requirements.txt: its packages were not installed within 30m0s; choose versions with wheels"
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

// TestFailedConfinement: a machine that cannot confine a tool is not a mistake of the Space.
func TestFailedConfinement(t *testing.T) {
	j, err := New(Config{Dir: t.TempDir(), Confine: func() Confinement { return broken{} }}).newJob(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	j.folders = []string{"/usr"}
	_, err = j.runTo(t.Context(), install, j.output, "uv")
	if e, ok := errors.AsType[*Error](err); !ok || e.Problem != "the build cannot be isolated: no namespaces" || e.Hint != "run `spacehost doctor`" {
		t.Errorf("got %v", err)
	}
}

// TestOldUV: a uv that cannot resolve without writing to the environment installs confined.
func TestOldUV(t *testing.T) {
	j, err := New(Config{Dir: t.TempDir(), Confine: func() Confinement { return oldUV{} }}).newJob(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	j.folders = []string{"/usr"}
	if done, err := j.installWheels(t.Context(), []string{"uv"}); done || err != nil || j.touched {
		t.Errorf("installWheels = %t, %v, touched %t", done, err, j.touched)
	}
}

type oldUV struct{}

func (oldUV) Run(ctx context.Context, tool Tool) error {
	fmt.Fprintln(tool.Stderr, "error: failed to create file `/state/environments/x/.lock`\n  Caused by: Read-only file system (os error 30)")
	return exec.CommandContext(ctx, "false").Run()
}
func (oldUV) Close() {}

type broken struct{}

func (broken) Run(context.Context, Tool) error { return errors.New("no namespaces") }
func (broken) Close()                          {}

// TestRefusedConnectionIsNamed: the reason of a failure may be a connection that the build was refused.
func TestRefusedConnectionIsNamed(t *testing.T) {
	f := failure{step: step{text: "installing requirements.txt", file: requirements}, err: errors.New("exit status 1"), raw: "error: Failed to build `helper`\n" + RefusedConnection + "connect to 10.0.0.1:443: a private address\n"}
	f.flat = flatten(f.raw)
	if _, hint := f.reasonWithRefusal(); !strings.HasSuffix(hint, "(the build was refused a connection: connect to 10.0.0.1:443: a private address)") {
		t.Errorf("hint %q", hint)
	}
}

// TestFoldersOfAnEnvironment: no package of the Space decides which folders of the machine the Space sees.
func TestFoldersOfAnEnvironment(t *testing.T) {
	t.Parallel()
	env := build(t, New(Config{Dir: stateDir(t)}), Spec{Gradio: "99.1.0"}, false)
	secret, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	site, err := filepath.Glob(filepath.Join(env.Dir, "lib", "python*", "site-packages"))
	if err != nil || len(site) != 1 {
		t.Fatalf("site-packages: %v, %v", site, err)
	}
	writeFiles(t, site[0], map[string]string{"hostile.pth": fmt.Sprintf("%s\nimport pathlib; pathlib.Path(%q).touch()\n", secret, ran)})
	folders, err := env.Folders(t.Context())
	if err != nil || slices.Contains(folders, secret) || !slices.Contains(folders, env.Dir) || len(folders) < 2 {
		t.Errorf("Folders() = %q, %v", folders, err)
	}
	if exists(ran) {
		t.Error("the environment's Python has run as the host")
	}
}
