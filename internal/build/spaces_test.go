package build

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestOldestSpaces(t *testing.T) {
	rows := []struct {
		gradio, spaces, oldest string // oldest: "" if it works
	}{
		{"6.31.0", "0.51.3", ""}, {"6.31.0", "0.46.0", ""}, {"6.31.0", "0.40.1", ""}, {"6.31.0", "0.40.0", "0.40.1"}, {"5.49.1", "0.30.4", "0.40.1"},
		{"5.43.0", "0.40.0", "0.40.1"}, {"5.42.0", "0.40.0", ""}, {"4.44.1", "0.30.4", ""}, {"4.44.1", "0.28.3", ""}, {"4.44.1", "0.20.0", "0.28.0"},
		{"6.31.0", "0.52.0.dev3", ""}, {"99.1.0", "99.0.0", ""},
	}
	for _, row := range rows {
		err := testJob(t, t.TempDir()).checkSpaces("checking", &Environment{Gradio: row.gradio, Spaces: row.spaces})
		want := fmt.Sprintf("spaces %s does not work with gradio %s here; the oldest release that works is %s; require spaces>=%s in", row.spaces, row.gradio, row.oldest, row.oldest)
		if (err == nil) != (row.oldest == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, row.oldest)
		}
	}
}

// TestPagesNameTheOldestSpaces: the pages and the runner repeat the version of oldestSpaces.
func TestPagesNameTheOldestSpaces(t *testing.T) {
	named := regexp.MustCompile("`?spaces`? (\\d[0-9.]*\\d) or newer")
	for _, name := range []string{"README.md", "docs/quickstart.md", "docs/design/0007-emulated-cuda.md", "worker/runner/spacehost_runner/fake_cuda.py"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		found := named.FindAllStringSubmatch(string(text), -1)
		if err != nil || len(found) == 0 {
			t.Errorf("%s names no version (%v)", name, err)
		}
		for _, f := range found {
			if want := oldestSpacesFor("6.31.0"); f[1] != want {
				t.Errorf("%s: %q, want %s", name, f[0], want)
			}
		}
	}
}
