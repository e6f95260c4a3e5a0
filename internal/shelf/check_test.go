package shelf_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// TestCheck: those paths are returned, in their order, that are neither uploads nor the author's own.
func TestCheck(t *testing.T) {
	home := t.TempDir()
	at := func(name string) string { return filepath.Join(home, name) }
	for _, name := range []string{"up/x", "cache/x", "own/x", "static/x", "secret"} {
		writeFile(t, at(name), "")
	}
	if err := os.Symlink(at("secret"), at("up/link")); err != nil {
		t.Fatal(err)
	}
	f := &queue.Files{Uploads: at("up"), Cache: at("cache"), Allowed: []string{at("own")}}
	f.SetStatic([]string{at("static")})
	wrong := []string{at("up/none"), "/proc/self/environ", at("up/link"), at("secret"), "up/x", at("up/x") + "\x00"}
	paths := slices.Concat([]string{at("up/x"), at("cache/x")}, wrong[:3], []string{at("own/x"), at("static/x"), at("up//./x")}, wrong[3:])
	got, err := shelftest.New(t, shelf.Config{}).Check(t.Context(), f, paths)
	if err != nil || !slices.Equal(got, wrong) {
		t.Errorf("got %q, %v, want %q", got, err, wrong)
	}
}
