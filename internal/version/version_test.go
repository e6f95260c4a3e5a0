package version

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLinkerFlags: the linker ignores -X for a variable that does not exist, and the binary of a release would be "dev".
func TestLinkerFlags(t *testing.T) {
	flag := regexp.MustCompile(`-X (spacehost/\S+?)=`)
	for _, file := range []string{"Makefile", "docker/Dockerfile", "internal/packaging/release"} {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		found := flag.FindAllStringSubmatch(string(text), -1)
		for _, one := range found {
			if name, ok := strings.CutPrefix(one[1], "spacehost/internal/version."); !ok || !slices.Contains([]string{"version", "commit", "date"}, name) {
				t.Errorf("%s sets %s, which does not exist", file, one[1])
			}
		}
		if len(found) == 0 {
			t.Errorf("%s sets no version", file)
		}
	}
}

func TestString(t *testing.T) {
	for want, b := range map[string]Build{
		"1.2.3 (commit abc, 2026-11-30T00:00:00Z, go1.26.8, SQLite 3.51.0)": {"1.2.3", "abc", "2026-11-30T00:00:00Z", "go1.26.8", "3.51.0"},
		"dev (go1.26.8)": {Version: "dev", Go: "go1.26.8"},
	} {
		if got := b.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
