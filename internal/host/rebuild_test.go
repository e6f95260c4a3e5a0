package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/build/buildtest"
	"spacehost/internal/config"
	"spacehost/internal/control"
)

// TestRebuildFlagBuildsOnce: with --rebuild, the Spaces of a host share one new environment, and a retry of a start does not build
// again.
func TestRebuildFlagBuildsOnce(t *testing.T) {
	b := newBuildHost(t, config.IsolationNone, nil, nil)
	one, two := b.all()[0], b.all()[1]
	former := b.build(one).Dir
	settings := *b.settings()
	settings.Rebuild = true
	b.current.Store(&settings)
	b.opened = b.build(two).Built.Add(1) // the host starts after that build
	first, second := b.build(one), b.build(two)
	if first.Cached || first.Dir == former || !second.Cached || second.Dir != first.Dir {
		t.Errorf("rebuilt %s (cached %t) and %s (cached %t) beside %s; want one new environment", first.Dir, first.Cached, second.Dir, second.Cached, former)
	}
	if again := b.build(one); !again.Cached || again.Dir != first.Dir {
		t.Errorf("the next start: %s (cached %t), want %s", again.Dir, again.Cached, first.Dir)
	}
	if _, err := os.Stat(former); !os.IsNotExist(err) {
		t.Errorf("the former environment, which no Space uses: %v, want it removed", err)
	}
}

func TestRebuildSpace(t *testing.T) {
	r, folder := startRebuildHost(t)
	for _, name := range []string{"one", "two"} {
		r.await(name+" is built", func() bool { return r.find(name).env() != nil })
	}
	former := r.find("one").env().Dir
	var steps []string
	answer, err := r.RebuildSpace(t.Context(), "one", "test", false, func(step control.BuildStep) {
		if step.State == "finished" {
			steps = append(steps, step.Text)
		}
	})
	if err != nil || answer.Environment != former+"-2" || !slices.Equal(answer.Sharing, []string{"two"}) || !slices.Contains(steps, "checking the environment") {
		t.Fatalf("rebuild = %+v with steps %q, %v; want %s-2, shared with two before", answer, steps, err, former)
	}
	r.await("one starts with the new environment", func() bool { return r.find("one").env().Dir == answer.Environment })
	if env := r.find("two").env().Dir; env != former {
		t.Errorf("two has %s, want its former environment", env)
	}

	writeFile(t, filepath.Join(folder, "requirements.txt"), "nosuchpackage-xyz")
	if _, err := r.RebuildSpace(t.Context(), "one", "test", false, func(control.BuildStep) {}); err == nil || !strings.Contains(err.Error(), `no package "nosuchpackage-xyz"`) {
		t.Errorf("a rebuild that fails: %v", err)
	}
	if env := r.find("one").env().Dir; env != answer.Environment {
		t.Errorf("after a failed rebuild: %s, want %s", env, answer.Environment)
	}
	if _, err := r.RebuildSpace(t.Context(), "own", "test", false, nil); err == nil || !strings.Contains(err.Error(), "own uses the interpreter /bin/false") {
		t.Errorf("a rebuild of another interpreter: %v", err)
	}
}

// startRebuildHost returns a host with two Spaces that share an environment and never start, and the folder of the first one.
func startRebuildHost(t *testing.T) (r *reloadHost, folder string) {
	t.Helper()
	wheels, environments := t.TempDir(), t.TempDir()
	if err := buildtest.SDK(wheels); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(keepTools(t), filepath.Join(environments, "tools")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UV_FIND_LINKS", wheels)
	t.Setenv("PIP_FIND_LINKS", wheels)
	t.Setenv("SPACEHOST_ENVIRONMENTS", environments)
	folder = writeBuildSpace(t, nil)
	spaces := strings.Replace(spaceOne, "name: one", "name: own", 1)
	for name, dir := range map[string]string{"one": folder, "two": writeBuildSpace(t, nil)} {
		spaces += fmt.Sprintf("- {folder: %s, name: %s, address: '127.0.0.1:0'}\n", dir, name)
	}
	return startReloadHost(t, labOf("", spaces)), folder
}
