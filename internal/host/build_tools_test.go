package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/egress"
)

// shell returns a tool that runs a script of sh.
func shell(script string) build.Tool {
	return build.Tool{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Stdout: io.Discard, Stderr: io.Discard}
}

// confine returns the confinement of a new host's Space.
func confine(t *testing.T, level config.Isolation) (*buildHost, build.Confinement) {
	t.Helper()
	b := newBuildHost(t, level, nil)
	c := b.all()[0].confineBuild()()
	t.Cleanup(c.Close)
	return b, c
}

// runTool returns the standard output of a tool.
func runTool(t *testing.T, c build.Confinement, tool build.Tool) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	tool.Stdout, tool.Stderr = &stdout, &stderr
	if err := c.Run(t.Context(), tool); err != nil {
		t.Fatalf("%q: %v: %s", tool.Argv, err, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

func TestConfinedTool(t *testing.T) {
	eachLevel(t, func(t *testing.T, level config.Isolation) {
		b, c := confine(t, level)
		exit, ok := errors.AsType[*exec.ExitError](c.Run(t.Context(), shell("exit 4")))
		if !ok || exit.ExitCode() != 4 {
			t.Errorf("exit 4: %v", exit)
		}
		lock, err := os.Create(filepath.Join(t.TempDir(), "x.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		holds := shell("readlink /proc/self/fd/3")
		holds.Held = lock
		if got := runTool(t, c, holds); filepath.Base(got) != "x.lock" {
			t.Errorf("descriptor 3 is %q, want the lock", got)
		}
		if got := runTool(t, c, shell("echo $HOME $TMPDIR; touch $HOME/x $TMPDIR/x $UV_CACHE_DIR/x && echo written")); !strings.HasPrefix(got, b.state.path("run", buildPrefix)) || !strings.HasSuffix(got, "written") {
			t.Errorf("own folders: %q", got)
		}
		c.Close()
		if left, _ := filepath.Glob(b.state.path("run", buildPrefix+"*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestChangesOfAToolAreDropped: uv's cache and the Space's folder keep their content, with layers and without.
func TestChangesOfAToolAreDropped(t *testing.T) {
	b, _ := confine(t, config.IsolationNamespaces)
	shared, source := t.TempDir(), b.all()[0].space().Dir
	writeFile(t, filepath.Join(shared, "wheel"), "good")
	writeFile(t, filepath.Join(source, "app.py"), "good")
	for _, layers := range []bool{true, false} {
		b.levels.overlay = layers
		c := b.all()[0].confineBuild()()
		tool := shell("cd " + source + " && echo bad > app.py && echo new > new && cat app.py new; [ -e $UV_CACHE_DIR/wheel ] && echo shared; echo bad > $UV_CACHE_DIR/wheel")
		tool.Source, tool.Cache = source, shared
		want := "bad\nnew"
		if layers {
			want += "\nshared"
		}
		if got := runTool(t, c, tool); got != want {
			t.Errorf("layers %t: the tool prints %q, want %q", layers, got, want)
		}
		c.Close()
		for _, path := range []string{filepath.Join(shared, "wheel"), filepath.Join(source, "app.py")} {
			if text, err := os.ReadFile(path); err != nil || string(text) != "good" {
				t.Errorf("layers %t: %s is %q (%v)", layers, path, text, err)
			}
		}
	}
}

// TestEndOfABuildEndsItsTools: a process that has left the tool's group and session ends with the build, too.
func TestEndOfABuildEndsItsTools(t *testing.T) {
	_, c := confine(t, config.IsolationNamespaces)
	const seconds = "604711"
	tool := shell("setsid sleep " + seconds + " & echo running; sleep " + seconds)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	tool.Stdout = writer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, tool)
		writer.Close()
	}()
	if _, err := reader.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the tool has succeeded")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the tool has not ended")
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // well formed
	for _, line := range lines {
		if text, _ := os.ReadFile(line); strings.Contains(string(text), seconds) {
			t.Errorf("%s has outlived the build: %q", line, text)
		}
	}
}

// TestModelsOfABuild: an environment that may be hostile downloads into a layer of the Space, and has no token.
func TestModelsOfABuild(t *testing.T) {
	eachLevel(t, func(t *testing.T, level config.Isolation) {
		hub := t.TempDir()
		t.Setenv("HF_HOME", hub)
		writeFile(t, filepath.Join(hub, "token"), canary)
		writeFile(t, filepath.Join(hub, "hub", "model"), "good")
		b, c := confine(t, level)
		tool := shell("cat $HF_HOME/token $HF_HOME/hub/model; mkdir -p $HF_HOME/hub; echo bad > $HF_HOME/hub/model")
		tool.Env, tool.Models = append(tool.Env, "HF_HOME="+hub), true
		want, layer := "good", b.state.path("spaces", "demo0", "hub", "model")
		if level == config.IsolationFiles {
			want, layer = "", b.state.path("spaces", "demo0", "hf", "hub", "model")
		}
		if got := runTool(t, c, tool); got != want {
			t.Errorf("the tool reads %q, want %q", got, want)
		}
		for path, want := range map[string]string{filepath.Join(hub, "hub", "model"): "good", layer: "bad\n"} {
			if text, err := os.ReadFile(path); string(text) != want {
				t.Errorf("%s is %q (%v), want %q", path, text, err, want)
			}
		}
	})
}

// TestNetworkOfABuild: the operator's indexes are always reachable, at private addresses too. Everything else is as for the
// Space itself.
func TestNetworkOfABuild(t *testing.T) {
	b, _ := confine(t, config.IsolationNamespaces)
	s := b.all()[0]
	tool := build.Tool{URLs: []string{"http://127.0.0.1:3141/simple", "http://localhost:3142/x", "https://203.0.113.80:8443/x", "https://203.0.113.81/x", "https://nexus.invalid/simple", "not an address", "https:///x"}}
	n, err := s.buildNetwork(t.Context(), tool)
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:3141"), netip.MustParseAddrPort("127.0.0.1:3142"), netip.MustParseAddrPort("203.0.113.80:8443")}
	if n.policy.Mode != egress.ModeHub || !slices.Equal(n.policy.Services, want) {
		t.Errorf("policy %+v, want hub with the services %v", n.policy, want)
	}
	s.settings().Egress.Mode = config.EgressNone
	for models, names := range map[bool][]bool{false: {true, true, false, false}, true: {true, true, true, false}} {
		tool.Models = models
		if n, err = s.buildNetwork(t.Context(), tool); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"pypi.org", "nexus.invalid", "cdn-lfs.hf.co", "example.com"} {
			if got := n.policy.AllowsName(name) == nil; got != names[i] {
				t.Errorf("egress none, models %t: %s is allowed: %t, want %t", models, name, got, names[i])
			}
		}
	}
}

// TestIndexOnThisMachine: a confined tool reaches an index of the operator on loopback, and nothing else there.
func TestIndexOnThisMachine(t *testing.T) {
	b, c := confine(t, config.IsolationNamespaces)
	hits, port := countConnections(t)
	index := strings.TrimPrefix(b.index.URL, "http://127.0.0.1:")
	const get = `exec 3<>/dev/tcp/127.0.0.1/%s && printf 'GET /simple/gradio/ HTTP/1.0\r\n\r\n' >&3 && cat <&3`
	tool := shell("")
	tool.URLs = []string{b.index.Address()}
	tool.Argv = []string{"/bin/bash", "-c", strings.ReplaceAll(get, "%s", index)}
	if got := runTool(t, c, tool); !strings.Contains(got, "gradio-99.1.0") {
		t.Errorf("the index answers %q", got)
	}
	tool.Argv[2] = strings.ReplaceAll(get, "%s", netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)).String()[len("0.0.0.0:"):])
	if err := c.Run(t.Context(), tool); err == nil || hits.Load() != 0 {
		t.Errorf("another service of this machine: %v, %d connections", err, hits.Load())
	}
}

// TestFoldersOfCrashedBuilds: the next start of the host removes them.
func TestFoldersOfCrashedBuilds(t *testing.T) {
	b, _ := confine(t, config.IsolationFiles)
	left := b.state.path("run", buildPrefix+"1", "home")
	writeFile(t, filepath.Join(left, "x"), "")
	if err := os.Chmod(left, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.removeBuildFolders(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(left)); err == nil {
		t.Error("the folder is still there")
	}
}

// TestBuildsAtLevelNone: nothing is confined.
func TestBuildsAtLevelNone(t *testing.T) {
	if b := newBuildHost(t, config.IsolationNone, nil); b.all()[0].confineBuild() != nil {
		t.Error("a build at level none is confined")
	}
}
