package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	goleak.VerifyTestMain(m)
}

// tree writes files below a temporary folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fake returns a machine with only these files, on which everything else works.
func fake(t *testing.T, files map[string]string, environ ...string) machine {
	t.Helper()
	return machine{
		root: tree(t, files), environ: append([]string{}, environ...), pid: 4242,
		access: func(path string, _ uint32) error { return unix.Access(path, unix.F_OK) },
		statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Bavail: 100 << 30 / 4096}, nil
		},
		namespaces: func(string) (sandbox.NamespacesProbe, error) { return sandbox.NamespacesProbe{Overlay: true}, nil },
		files:      func() sandbox.FilesProbe { return sandbox.FilesProbe{ABI: 7} },
		canKill:    func(string) error { return nil },
	}
}

// expect compares with rows of "level | part of Text | part of Do". Do must be empty exactly if the level is ok.
func expect(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d findings, want %d: %+v", len(got), len(want), got)
		return
	}
	for i, f := range got {
		part := strings.Split(want[i]+"||", "|")
		for n := range part {
			part[n] = strings.TrimSpace(part[n])
		}
		if string(f.Level) != part[0] || !strings.Contains(f.Text, part[1]) || !strings.Contains(f.Do, part[2]) {
			t.Errorf("got  %s | %s | %s\nwant %s", f.Level, f.Text, f.Do, want[i])
		}
		if f.Text == "" || (f.Do == "") != (f.Level == OK) {
			t.Errorf("%s | %q | %q: a finding needs a text, and a next step unless it is ok", f.Level, f.Text, f.Do)
		}
	}
}
