package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
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
	synctest.Test(t, func(t *testing.T) {
		var told recorder
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			sourceWatch{folder: folder, restart: told.tell, note: func(string) { told.tell("a note") }}.run(ctx)
			close(ended)
		}()
		want := func(when string, after time.Duration, want ...string) { t.Helper(); told.want(t, when, after, want...) }
		want("without a change", 1500*time.Millisecond)
		write("app.py", "22")
		want("one look after a change", time.Second)
		want("two looks after a change", time.Second, "app.py")
		for i := range 3 { // an editor that goes on writing
			write("app.py", fmt.Sprint("333", i*1000))
			write("pages/style.css", fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		want("after several changes", 2*time.Second, "app.py and 1 more files")
		for _, path := range []string{"out.json", "image.png", ".git/hook.py", "node_modules/x/y.js", "sub/README.md"} {
			write(path, "x")
		}
		want("after files that are not the Space's code", 3*time.Second)
		write("README.md", "---\nsdk: gradio\n---\n")
		want("after a new README.md", 3*time.Second, "a note")
		if err := os.Remove(filepath.Join(folder, "pages", "style.css")); err != nil {
			t.Fatal(err)
		}
		write("requirements.txt", "six")
		want("after a removal and new requirements", 3*time.Second, "a note", "pages/style.css")
		cancel()
		<-ended
	})
}
