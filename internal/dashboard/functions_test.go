package dashboard

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"spacehost/internal/feature/featuretest"
)

// TestFunctionsOfPages runs testdata/*.test.js with Node, in a time zone with summer time.
func TestFunctionsOfPages(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		featuretest.Missing(t, "Node is not installed")
		return
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("pages")); err != nil {
		t.Fatal(err)
	}
	texts := map[string][]byte{"package.json": []byte(`{"type": "module"}`)}
	scripts, _ := filepath.Glob("testdata/*.test.js") // the pattern is valid
	for _, name := range scripts {
		if texts[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(node, "--test")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TZ=Europe/Berlin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
