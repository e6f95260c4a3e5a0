package host

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestRootIsReported checks that `run` and `serve` warn once if Spaces are root, which they are if this test runs as root.
func TestRootIsReported(t *testing.T) {
	want := 0
	if os.Geteuid() == 0 {
		want = 1
	}
	for _, file := range []string{"", "lab.yaml"} {
		h := serveTestHost(t)
		var shown bytes.Buffer
		h.settings.File, h.screen = file, newScreen(false, &shown, &shown)
		h.greet()
		if got := strings.Count(shown.String(), "WARNING: spacehost runs as root. The kernel treats the code of every Space as root"); got != want {
			t.Errorf("with the file %q: %d warnings, want %d:\n%s", file, got, want, &shown)
		}
	}
}
