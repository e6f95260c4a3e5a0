package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
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

// TestEnvFileFlagOfCheck checks the Secrets of a start by `check --run`. A duplicate has none.
func TestEnvFileFlagOfCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets.env")
	if err := os.WriteFile(path, []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := func(args ...string) *checkStages {
		s := &checkStages{}
		flags := pflag.NewFlagSet("check", pflag.ContinueOnError)
		s.Flags(flags)
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := parse("--env-file", path, "--secret", "B=flag", "--variable", "C=d")
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	variables, secrets := s.run.environment()
	if want := map[string]string{"A": "file", "B": "flag"}; !maps.Equal(secrets, want) || !maps.Equal(variables, map[string]string{"C": "d"}) {
		t.Errorf("Secrets %v, want %v; Variables %v", secrets, want, variables)
	}
	if _, err := parse("--env-file", path).Duplicate(); err == nil || !strings.Contains(err.Error(), "a duplicate gets no Secrets") {
		t.Errorf("a duplicate: %v", err)
	}
	if err := parse("--env-file", path+".gone").Check(); err == nil || !strings.HasPrefix(err.Error(), "--env-file: cannot read ") {
		t.Errorf("a missing file: %v", err)
	}
}
