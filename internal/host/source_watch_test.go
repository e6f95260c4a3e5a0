package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/space"
)

// TestSourceWatch changes files of a Space while it is watched.
func TestSourceWatch(t *testing.T) {
	folder := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(folder, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("app.py", "1")
	old := time.Now().Add(-time.Hour) // the file system's clock is coarse, and a test may write within one tick
	if err := os.Chtimes(filepath.Join(folder, "app.py"), old, old); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var told recorder
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			sourceWatch{folder: folder, restart: told.tell, rebuild: func(changed string) { told.tell("build for " + changed) }}.run(ctx)
			close(ended)
		}()
		want := func(when string, after time.Duration, want ...string) { t.Helper(); told.want(t, when, after, want...) }
		want("without a change", time.Second)
		write("app.py", "22")
		want("before the second look", shortestWatch+shortestWatch/2)
		want("two looks after a change", shortestWatch, "app.py")
		for i := range 3 { // an editor that goes on writing
			write("app.py", fmt.Sprint("333", i*1000))
			write("pages/style.css", fmt.Sprint(i))
			time.Sleep(shortestWatch)
		}
		want("after several changes", time.Second, "app.py and 1 more files")
		for _, path := range []string{"out.json", "image.png", ".git/hook.py", "node_modules/x/y.js", "sub/README.md"} {
			write(path, "x")
		}
		want("after files that are not the Space's code", time.Second)
		write("README.md", "---\nsdk: gradio\n---\n")
		want("after a new README.md", time.Second, "build for README.md")
		if err := os.Remove(filepath.Join(folder, "pages", "style.css")); err != nil {
			t.Fatal(err)
		}
		write("requirements.txt", "six")
		write("packages.txt", "ffmpeg")
		want("after a removal and new requirements", time.Second, "build for packages.txt, requirements.txt", "pages/style.css")
		cancel()
		<-ended
	})
}

// TestEditedFrontMatter compares front matters, as the Space's author edits them.
func TestEditedFrontMatter(t *testing.T) {
	before := space.Space{Title: "A", SDKVersion: "5.49.1", Warnings: []string{"w"}}
	for name, c := range map[string]struct {
		change         func(*space.Space)
		same, needsNew bool
	}{
		"warnings":          {func(s *space.Space) { s.Warnings = nil }, true, false},
		"sdk_version":       {func(s *space.Space) { s.SDKVersion = "6.31.0" }, false, false},
		"title":             {func(s *space.Space) { s.Title = "B" }, false, false},
		"disable_embedding": {func(s *space.Space) { s.DisableEmbedding = true }, false, true},
	} {
		after := before
		c.change(&after)
		if same, needsNew := isSame(&before, &after), needsNewHost(&before, &after); same != c.same || needsNew != c.needsNew {
			t.Errorf("%s: same %v, needs a new host %v, want %v and %v", name, same, needsNew, c.same, c.needsNew)
		}
	}
}
