package clidoc

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReferenceIsCurrent holds docs/cli.md to the commands.
func TestReferenceIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := Write(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/cli.md differs from the commands; run `make docs`")
	}
	for _, section := range []string{"## spacehost\n", "## spacehost gpu drain\n", "## spacehost version\n"} {
		if !strings.Contains(want.String(), section) {
			t.Errorf("no section %q", section)
		}
	}
}

// TestRulesAreCurrent holds docs/rules.md to the pages of the rules.
func TestRulesAreCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := WriteRules(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/rules.md differs from the pages of the rules; run `make docs`")
	}
	if !strings.Contains(want.String(), "| [A201](#a201) | error | A | read |") || !strings.Contains(want.String(), "## F315\n") {
		t.Errorf("docs/rules.md:\n%.3000s", want.String())
	}
}

// TestFilesOfPackages checks that each command has a man page, and that a shell can read its completion.
func TestFilesOfPackages(t *testing.T) {
	folder := t.TempDir()
	if err := WriteMan(folder); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"spacehost.1", "spacehost-run.1", "spacehost-gpu-drain.1"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil || !bytes.Contains(text, []byte(".SH SYNOPSIS")) {
			t.Errorf("%s: %v, %.60q", name, err, text)
		}
	}
	if err := WriteCompletions(folder); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("bash", "-n", filepath.Join(folder, "spacehost")).CombinedOutput(); err != nil {
		t.Errorf("bash does not read its completion: %v: %s", err, out)
	}
	for _, name := range []string{"_spacehost", "spacehost.fish"} {
		if text, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Contains(text, []byte("__complete")) {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
}
