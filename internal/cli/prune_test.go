package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPruneUsesStateOfFile: `prune --config` removed the homes of the default state folder, whose Spaces are others.
func TestPruneUsesStateOfFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "default"))
	old := time.Now().Add(-30 * 24 * time.Hour)
	for name, text := range map[string]string{
		"demo/README.md": "---\nsdk: gradio\n---\n", "demo/app.py": "",
		"lab.yaml":                           "state: lab\nspaces:\n- folder: demo\n  name: demo\n  address: ':0'\n",
		"lab/spaces/demo/home/notes":         "",
		"lab/spaces/gone/home/notes":         "",
		"default/spacehost/spaces/own/notes": "",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for ; name != "."; name = filepath.Dir(name) {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := spacehostOn(t.Context(), "default/spacehost", "prune", "--config", "lab.yaml")
	if want := "lab.yaml has another state folder, " + filepath.Join(dir, "lab"); got.code != ExitUsage || !strings.Contains(got.err, want) {
		t.Errorf("another --state: got %+v, want %s", got, want)
	}
	for _, state := range []string{"", "lab"} {
		if got := spacehostOn(t.Context(), state, "prune", "--config", "lab.yaml", "--keep", "0"); got.code != 0 {
			t.Errorf("--state %q: %+v", state, got)
		}
	}
	for path, stays := range map[string]bool{"lab/spaces/demo/home/notes": true, "lab/spaces/gone": false, "default/spacehost/spaces/own/notes": true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %t", path, err, stays)
		}
	}
}
