package host

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"spacehost/internal/config"
)

// TestRootIsReported checks that `run` and `serve` warn once if Spaces are root, which they are if this test runs as root and
// a Space has no uid of its own. Only `serve` can give it one.
func TestRootIsReported(t *testing.T) {
	for _, row := range []struct {
		file   string
		levels []config.Isolation
		warns  bool
		next   string
	}{
		{"", []config.Isolation{config.IsolationNamespaces}, true, "Run spacehost as an ordinary user."},
		{"lab.yaml", []config.Isolation{config.IsolationUsers, config.IsolationNamespaces}, true, "`isolation: users` and a range of uids that no account uses, such as `users: 200000-200999`."},
		{"lab.yaml", []config.Isolation{config.IsolationUsers, config.IsolationUsers}, false, ""},
	} {
		h := serveTestHost(t)
		var shown bytes.Buffer
		h.settings().File, h.screen = row.file, newScreen(false, &shown, &shown)
		h.settings().Spaces = nil
		for _, level := range row.levels {
			h.settings().Spaces = append(h.settings().Spaces, config.SpaceSettings{IsolationSettings: config.IsolationSettings{Isolation: level}})
		}
		h.greet()
		want := 0
		if os.Geteuid() == 0 && row.warns {
			want = 1
		}
		if got := strings.Count(shown.String(), "WARNING: spacehost runs as root."); got != want || want == 1 && !strings.Contains(shown.String(), row.next) {
			t.Errorf("with the file %q and levels %v: %d warnings, want %d with %q:\n%s", row.file, row.levels, got, want, row.next, &shown)
		}
	}
}
