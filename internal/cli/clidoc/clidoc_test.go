package clidoc

import (
	"bytes"
	"os"
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
