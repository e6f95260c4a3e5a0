package build

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestRebuildIsShared: `serve --rebuild` with Spaces that share an environment removed it under each other, and built it five
// times until both ran.
func TestRebuildIsShared(t *testing.T) {
	t.Parallel()
	dir, space := stateDir(t), spaceDir(t, map[string]string{"requirements.txt": "iniconfig"})
	spec := Spec{Gradio: "99.1.0", Dir: space}
	running := build(t, New(Config{Dir: dir}), spec, false)
	spec.BuiltAfter = time.Now()
	made := make([]*Environment, 3)
	var group errgroup.Group
	for i := range made {
		group.Go(func() (err error) {
			made[i], err = New(Config{Dir: dir}).Build(t.Context(), spec)
			return err
		})
	}
	python(t, running, "import iniconfig")
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, env := range made {
		if !env.Cached {
			fresh++
		}
		if env.Dir != running.Dir+"-2" {
			t.Errorf("environment %s, want the one beside %s", env.Dir, running.Dir)
		}
	}
	if fresh != 1 {
		t.Errorf("%d of 3 builds made the environment, want 1", fresh)
	}
	python(t, running, "import iniconfig") // in use until its Release

	running.Release()
	if again := build(t, New(Config{Dir: dir}), spec, false); !again.Cached || exists(running.Dir) || exists(running.Dir+useSuffix) {
		t.Errorf("a build after the last use: cached %t, the replaced environment exists: %t", again.Cached, exists(running.Dir))
	}
}

func TestFailedRebuildKeepsEnvironment(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	b := New(Config{Dir: dir})
	spec := Spec{Gradio: "99.1.0", Dir: spaceDir(t, map[string]string{"app.py": ""})}
	first := build(t, b, spec, false)
	ctx, cancel := context.WithCancel(t.Context())
	spec.BuiltAfter = time.Now()
	interrupted := New(Config{Dir: dir, Progress: func(s Step) {
		if s.State == Finished {
			cancel()
		}
	}})
	if env, err := interrupted.Build(ctx, spec); err == nil {
		t.Fatalf("an interrupted rebuild = %+v, want an error", env)
	}
	if exists(first.Dir + "-2") {
		t.Error("the interrupted rebuild left a folder")
	}
	if again := build(t, b, Spec{Gradio: "99.1.0", Dir: spec.Dir}, false); !again.Cached || again.Dir != first.Dir {
		t.Errorf("after a failed rebuild: %+v, want %s, cached", again, first.Dir)
	}
}

// fakeEnvironment makes what Builds would leave behind.
func fakeEnvironment(t *testing.T, home string, finished bool) {
	t.Helper()
	writeFiles(t, home, map[string]string{"bin/python": "", "lib/package.py": "12345"})
	if finished {
		if err := writeStamp(home, &Environment{Gradio: "6.0.0"}); err != nil {
			t.Fatal(err)
		}
	}
}

// usedAt uses an environment at a time in the past, for a caller with a reference.
func usedAt(t *testing.T, home, reference string, at time.Time) *use {
	t.Helper()
	u, err := openUse(home)
	if err != nil {
		t.Fatal(err)
	}
	j := job{Builder: New(Config{Reference: reference})}
	if err := j.refer(home); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(home+useSuffix, at, at); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPrune(t *testing.T) {
	t.Parallel()
	dir, references := t.TempDir(), t.TempDir()
	all := filepath.Join(dir, "environments")
	path := func(name string) string { return filepath.Join(all, name) }
	old, recent := time.Now().Add(-30*24*time.Hour), time.Now().Add(-time.Hour)
	const (
		running, referred, forgotten, fresh, ignored, early, half = "0000000000000001", "0000000000000002", "0000000000000003", "0000000000000004",
			"0000000000000005", "0000000000000006", "0000000000000007"
	)
	for _, name := range []string{running, referred, referred + "-2", forgotten, fresh, ignored, early} {
		fakeEnvironment(t, path(name), true)
	}
	fakeEnvironment(t, path(half), false)
	fakeEnvironment(t, path(early+"-2"), false)
	fakeEnvironment(t, filepath.Join(all, "notes"), false) // a folder of another program

	defer usedAt(t, path(running), "", old).close()
	usedAt(t, path(referred), filepath.Join(references, "moved"), recent).close()
	usedAt(t, path(referred+"-2"), filepath.Join(references, "moved"), old).close()
	usedAt(t, path(forgotten), filepath.Join(references, "other"), old).close()
	usedAt(t, path(fresh), filepath.Join(references, "other"), recent).close()
	usedAt(t, path(ignored), filepath.Join(references, "removed"), old).close()
	if err := os.Remove(filepath.Join(references, "other")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(path(early), stampName), old, old); err != nil { // of a release without use files
		t.Fatal(err)
	}
	building, err := lockFile(t.Context(), path("0000000000000008"+lockSuffix), func() {})
	if err != nil {
		t.Fatal(err)
	}
	fakeEnvironment(t, path("0000000000000008"), false)

	p := Prune{Dir: dir, Keep: 24 * time.Hour, DryRun: true,
		Ignored: func(reference string) bool { return filepath.Base(reference) == "removed" },
		Usage:   func(context.Context, string) (int64, error) { return 4096, nil }}
	want := map[string]string{
		referred: "replaced by a rebuild", forgotten: "no Space refers to it", ignored: "no Space refers to it", early: "no Space refers to it",
		early + "-2": "unfinished, or its Python was removed", half: "unfinished, or its Python was removed",
	}
	checkPruned(t, p, want)
	for name := range want {
		if !exists(path(name)) {
			t.Errorf("the dry run has removed %s", name)
		}
	}

	p.DryRun = false
	checkPruned(t, p, want)
	var left []string
	entries, _ := os.ReadDir(all)
	for _, entry := range entries {
		if entry.IsDir() {
			left = append(left, entry.Name())
		}
	}
	if stay := []string{running, referred + "-2", fresh, "0000000000000008", "notes"}; !reflect.DeepEqual(left, stay) {
		t.Errorf("left %q, want %q", left, stay)
	}

	building.release()
	checkPruned(t, p, map[string]string{"0000000000000008": "unfinished, or its Python was removed"})
}

func checkPruned(t *testing.T, p Prune, want map[string]string) {
	t.Helper()
	all, err := p.Run(t.Context())
	got := map[string]string{}
	for _, one := range all {
		got[filepath.Base(one.Dir)] = one.Why
		if one.Err != nil || one.Bytes != 4096 {
			t.Errorf("%+v, want 4096 bytes and no error", one)
		}
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Prune = %q, %v; want %q", got, err, want)
	}
}

func TestGenerationNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "0123456789abcdef")
	for _, name := range []string{"0123456789abcdef", "0123456789abcdef-2", "0123456789abcdef-10", "0123456789abcdef-1", "0123456789abcdef-02", "0123456789abcdef-x", "0123456789abcdee-2"} {
		writeFiles(t, filepath.Join(dir, name), map[string]string{"a": ""})
	}
	writeFiles(t, dir, map[string]string{"0123456789abcdef-3": "a file"})
	if got, err := generations(key); err != nil || !slices.Equal(got, []int{10, 2, 1}) {
		t.Errorf("generations = %v, %v; want 10, 2, 1", got, err)
	}
}
