package config

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadEnvFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), EnvFile)
	for _, c := range []struct {
		name, text string
		want       map[string]string
		err        string // after the path
	}{
		{"syntax", "# keys\nA=1\nexport B=\"two words\" # why\nC='$A'\nD=\"${A}0\"\nE=\"a\nb\"\nF=\n\n", map[string]string{"A": "1", "B": "two words", "C": "$A", "D": "10", "E": "a\nb", "F": ""}, ""},
		{"empty", "", map[string]string{}, ""},
		{"no name", "A=1\nhf_secret!\nB=2\n", nil, ":2: the line is not NAME=VALUE"},
		{"open quote", "A=1\nB=\"hf_secret\nC=2\n", nil, ":2: the line is not"},
		{"name", "A-hf_1=hf_secret", nil, ": the line is not"},
		{"digit", "1A=hf_secret", nil, `: "1A" is not a valid variable name; use letters`},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadEnvFile(path)
		switch {
		case c.err == "" && (err != nil || !maps.Equal(got, c.want)):
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), ":1:", ":"), c.err)):
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error shows a value: %v", c.name, err)
		}
	}
	if _, err := ReadEnvFile(path + ".gone"); err == nil || !strings.Contains(err.Error(), "cannot read "+path+".gone: no such file") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestEnvFileNote(t *testing.T) {
	dir := t.TempDir()
	if got := EnvFileNote(dir); got != "" {
		t.Errorf("without a file: %q", got)
	}
	path := filepath.Join(dir, EnvFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := EnvFileNote(dir); !strings.Contains(got, "--env-file "+path) {
		t.Errorf("got %q", got)
	}
}
