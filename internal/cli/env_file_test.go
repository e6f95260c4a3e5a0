package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnvFileFlag checks the Secrets of `run`, and the note about a file that is not read.
func TestEnvFileFlag(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ".env")
	if err := os.WriteFile(path, []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options{dirs: []string{dir}, secrets: []string{"B=flag"}, envFiles: []string{path}}
	if err := o.readEnvFiles(); err != nil || len(o.notes) > 0 {
		t.Fatal(err, o.notes)
	}
	if got, want := o.settings().Spaces[0].Secrets, map[string]string{"A": "file", "B": "flag"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	o = options{dirs: []string{dir}}
	if err := o.readEnvFiles(); err != nil || len(o.notes) != 1 || !strings.Contains(o.notes[0], "--env-file "+path) {
		t.Errorf("without the flag: %v, %q", err, o.notes)
	}
	if got := o.settings().Spaces[0].Secrets; len(got) > 0 {
		t.Errorf("without the flag: %v", got)
	}
	o.envFiles = []string{path + ".gone"}
	if err := o.readEnvFiles(); err == nil || !strings.HasPrefix(err.Error(), "--env-file: cannot read ") {
		t.Errorf("a missing file: %v", err)
	}
}
