package prune

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/fetchspace"
)

// folder is a state folder whose files are 30 days old, unless they are written with now.
type folder struct {
	t        *testing.T
	dir      string
	now, old time.Time
}

func newFolder(t *testing.T) *folder {
	now := time.Now()
	return &folder{t, t.TempDir(), now, now.Add(-30 * 24 * time.Hour)}
}

func (f *folder) path(parts ...string) string {
	return filepath.Join(append([]string{f.dir}, parts...)...)
}

// write writes a file whose last change, like that of its folders, is at a time.
func (f *folder) write(at time.Time, path, text string) {
	f.t.Helper()
	path = f.path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.age(at, path)
}

// age sets the times of a path and of its folders below the state folder.
func (f *folder) age(at time.Time, path string) {
	f.t.Helper()
	for ; path != f.dir; path = filepath.Dir(path) {
		if err := os.Chtimes(path, at, at); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *folder) config() Config {
	return Config{
		State: f.dir, Environments: f.path("environments"), Keep: 7 * 24 * time.Hour, Now: f.now,
		Usage: func(_ context.Context, dir string) (n int64, err error) {
			return n, filepath.WalkDir(dir, func(string, os.DirEntry, error) error { n++; return nil })
		},
	}
}

// prune runs and returns the Items as "kind path".
func (f *folder) prune(c Config) (got []string) {
	f.t.Helper()
	items, err := Run(f.t.Context(), c)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, item := range items {
		if item.Kept {
			item.Kind += " kept"
		}
		if item.Err != nil || item.Bytes == 0 || item.Why == "" {
			f.t.Errorf("%+v, want a size, a reason and no error", item)
		}
		relative, _ := filepath.Rel(f.dir, item.Path)
		got = append(got, string(item.Kind)+" "+relative)
	}
	slices.Sort(got)
	return got
}

func (f *folder) exists(path string) bool {
	_, err := os.Stat(f.path(path))
	return err == nil
}

// TestRemovedSpaces: environments and homes of removed Spaces stayed for ever.
func TestRemovedSpaces(t *testing.T) {
	f := newFolder(t)
	const used, unused = "environments/environments/00000000000000aa", "environments/environments/00000000000000bb"
	for space, environment := range map[string]string{"kept": used, "gone": unused, "gone-data": unused} {
		f.write(f.old, "logs/build-"+space+".log", "x")
		f.write(f.old, "logs/run-"+space+"-2026-10-01T10-00-00.000.log.gz", "x")
		f.write(f.old, environment+"/environment.json", "{}")
		f.write(f.old, environment+"/bin/python", "")
		f.write(f.old, environment+".use", f.path("spaces", space, "environment")+"\n")
		f.write(f.old, "spaces/"+space+"/environment", f.path(environment)+"\n")
		f.write(f.old, "spaces/"+space+"/home/gradio/5f/upload.bin", "x")
	}
	f.write(f.old, "spaces/gone-data/data/results.db", "x")
	f.age(f.old, f.path("spaces/gone-data"))
	f.write(f.now, "spaces/recent/home/gradio/5f/upload.bin", "x")
	f.write(f.old, "logs/spacehost.log", "x")
	f.write(f.old, "keys/a.key", "x")

	c := f.config()
	c.Spaces, c.Running, c.DryRun = []string{"kept"}, true, true
	want := []string{
		"environment " + unused, "log logs/build-gone-data.log", "log logs/build-gone.log", "log logs/run-gone-2026-10-01T10-00-00.000.log.gz",
		"log logs/run-gone-data-2026-10-01T10-00-00.000.log.gz", "space spaces/gone", "space spaces/gone-data",
	}
	if got := f.prune(c); !reflect.DeepEqual(got, want) {
		t.Errorf("dry run:\n%q, want\n%q", got, want)
	}
	if !f.exists("spaces/gone/home") || !f.exists(unused) {
		t.Error("the dry run has removed something")
	}
	c.DryRun = false
	if got := f.prune(c); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	for path, stays := range map[string]bool{
		used: true, unused: false, "spaces/kept/home/gradio/5f": true, "spaces/gone": false, "spaces/gone-data/home": false, "spaces/gone-data/data/results.db": true,
		"spaces/recent/home": true, "logs/spacehost.log": true, "logs/build-kept.log": true, "logs/build-gone.log": false, "keys/a.key": true,
	} {
		if f.exists(path) != stays {
			t.Errorf("%s exists: %t, want %t", path, f.exists(path), stays)
		}
	}

	if got := f.prune(c); len(got) > 0 {
		t.Errorf("again: %q, want nothing", got)
	}
	c.Data, c.Keep = true, 0
	if got := f.prune(c); !reflect.DeepEqual(got, []string{"space spaces/gone-data", "space spaces/recent"}) || f.exists("spaces/gone-data") {
		t.Errorf("with --data: %q", got)
	}
}

// Names of folders in Gradio's cache.
var (
	oldSum = strings.Repeat("0a", 32)
	newSum = strings.Repeat("0b", 32)
)

func TestUploadsOfKnownSpaces(t *testing.T) {
	f := newFolder(t)
	f.write(f.old, "spaces/kept/home/gradio/"+oldSum+"/upload.bin", "x")
	f.write(f.now, "spaces/kept/home/gradio/"+newSum+"/upload.bin", "x")
	f.write(f.old, "spaces/kept/home/gradio/models/weights", "x")
	f.write(f.old, "spaces/kept/home/models/weights", "x")
	c := f.config()
	c.Spaces, c.Running = []string{"kept", "new"}, true
	if got := f.prune(c); len(got) > 0 {
		t.Errorf("while a host runs: %q, want nothing", got)
	}
	c.Running = false
	if got := f.prune(c); !reflect.DeepEqual(got, []string{"uploads spaces/kept/home/gradio"}) {
		t.Errorf("got %q, want the uploads", got)
	}
	if f.exists("spaces/kept/home/gradio/"+oldSum) || !f.exists("spaces/kept/home/gradio/"+newSum+"/upload.bin") ||
		!f.exists("spaces/kept/home/gradio/models/weights") || !f.exists("spaces/kept/home/models/weights") {
		t.Error("want only the old upload removed")
	}
}

// TestLinksOfSpaces: prune removed files of others to which a Space had linked its folder of uploads.
func TestLinksOfSpaces(t *testing.T) {
	for name, link := range map[string]string{"its home": "home", "its uploads": "home/gradio", "one upload": "home/gradio/" + oldSum} {
		t.Run(name, func(t *testing.T) {
			f, others := newFolder(t), newFolder(t)
			folder := strings.TrimPrefix(strings.TrimPrefix("home/gradio/"+oldSum, link), "/")
			theirs := filepath.Join("x", folder, "theirs")
			others.write(f.old, theirs, "x")
			f.write(f.old, "spaces/kept/home/notes", "x")
			if link == "home" {
				if err := os.RemoveAll(f.path("spaces/kept/home")); err != nil {
					t.Fatal(err)
				}
			}
			path := f.path("spaces/kept", link)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(others.path("x"), path)); err != nil {
				t.Fatal(err)
			}
			c := f.config()
			c.Spaces, c.Keep = []string{"kept"}, 0
			items, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if reported := len(items) == 1 && items[0].Err != nil && strings.Contains(items[0].Err.Error(), f.path("spaces/kept", link)+" is not a folder"); reported != (name != "one upload") {
				t.Errorf("got %+v", items)
			}
			if !others.exists(theirs) {
				t.Error("a file of others is removed")
			}

			c.Spaces = nil // the Space is removed from the configuration
			if _, err := Run(t.Context(), c); err != nil || f.exists("spaces/kept") || !others.exists(theirs) {
				t.Errorf("%v; want the folder of the Space removed, and nothing of others", err)
			}
		})
	}
}

// TestSpaceAddedMeanwhile: a reload adds a Space after prune has found its old folder.
func TestSpaceAddedMeanwhile(t *testing.T) {
	f := newFolder(t)
	f.write(f.old, "spaces/back/home/notes", "x")
	f.write(f.old, "spaces/gone/home/notes", "x")
	f.write(f.old, "logs/run-back.log", "x")
	f.write(f.now, "spaces/"+asidePrefix+"gone/home/notes", "x") // of a killed run
	c := f.config()
	locked := false
	c.Running = true
	c.Locked = func(do func(spaces, folders []string)) {
		locked = true
		do([]string{"back"}, nil)
		locked = false
	}
	usage := c.Usage
	c.Usage = func(ctx context.Context, dir string) (int64, error) {
		if locked {
			t.Errorf("%s is measured under the lock", dir)
		}
		return usage(ctx, dir)
	}
	if got := f.prune(c); !reflect.DeepEqual(got, []string{"space spaces/gone"}) || !f.exists("spaces/back/home/notes") || f.exists("spaces/gone") {
		t.Errorf("got %q, want only the folder of gone", got)
	}
	if left := namesIn(f.path("spaces")); !reflect.DeepEqual(left, []string{"back"}) {
		t.Errorf("left %q", left)
	}
}

// TestEnd: prune stops between two items, and reports those that it has removed.
func TestEnd(t *testing.T) {
	f := newFolder(t)
	f.write(f.old, "spaces/a/home/notes", "x")
	f.write(f.old, "spaces/b/home/notes", "x")
	c := f.config()
	ctx, end := context.WithCancelCause(t.Context())
	why := errors.New("the host is stopping")
	c.Usage = func(_ context.Context, dir string) (int64, error) {
		if filepath.Base(dir) == "b" {
			end(why)
		}
		return 1, nil
	}
	items, err := Run(ctx, c)
	if err != why || len(items) != 1 || f.exists("spaces/a") || !f.exists("spaces/b") {
		t.Errorf("got %+v, %v; want only the folder of a removed", items, err)
	}
}

func TestClones(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	f := newFolder(t)
	fetcher := fetchspace.New(f.path("clones"), nil)
	for _, name := range []string{"used", "unused", "changed", "new", "recent"} {
		origin := filepath.Join(t.TempDir(), name)
		git(t, "", "init", "--quiet", origin)
		if err := os.WriteFile(filepath.Join(origin, "app.py"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		git(t, origin, "add", ".")
		git(t, origin, "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet", "-m", "x")
		if _, err := fetcher.Fetch(t.Context(), fetchspace.Source{URL: "file://" + origin, Folder: filepath.Join("owner", name)}); err != nil {
			t.Fatal(err)
		}
	}
	c := f.config()
	var unused string
	var want []string
	for _, clone := range fetcher.Clones() {
		name := filepath.Base(clone.Dir)
		switch name {
		case "used":
			c.Folders = []string{clone.Dir}
		case "changed":
			if err := os.WriteFile(filepath.Join(clone.Dir, "app.py"), []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			want = append(want, "clone kept "+filepath.Join("clones/owner", name))
		case "new":
			if err := os.WriteFile(filepath.Join(clone.Dir, "notes.md"), []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			want = append(want, "clone kept "+filepath.Join("clones/owner", name))
		case "unused":
			if err := os.Mkdir(filepath.Join(clone.Dir, "__pycache__"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(clone.Dir, "__pycache__", "app.pyc"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			unused, _ = filepath.Rel(f.dir, clone.Dir)
			want = append(want, "clone "+unused)
		}
		if name == "recent" {
			continue
		}
		for _, dir := range []string{clone.Dir, clone.GitDir} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				f.age(f.old, filepath.Join(dir, entry.Name()))
			}
		}
	}
	slices.Sort(want)
	if got := f.prune(c); !reflect.DeepEqual(got, want) || f.exists(unused) {
		t.Errorf("got %q, want %q", got, want)
	}
	if left := fetcher.Clones(); len(left) != 4 {
		t.Errorf("left %v, want four clones", left)
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
