package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestIsNewer has versions in the order of PEP 440.
func TestIsNewer(t *testing.T) {
	ordered := []string{"0.51.3", "0.52.0.dev0", "0.52.0.dev3", "0.52.0a1", "0.52.0b2", "0.52.0rc1.dev1", "0.52.0rc1", "0.52.0rc10", "0.52", "0.52.0.post1.dev1", "0.52.0.post1", "0.52.1", "0.53", "6.31.0", "6.100", "7.0.0.dev0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := isNewer(a, b); got != (i > j) {
				t.Errorf("isNewer(%s, %s) = %v", a, b, got)
			}
		}
	}
	for _, pair := range [][2]string{{"0.52", "0.52.0"}, {"0.52.0", "0.52"}, {"", "1"}, {"2", "main"}, {"1.0+cu128", "1.0"}} {
		if isNewer(pair[0], pair[1]) {
			t.Errorf("isNewer(%q, %q) = true", pair[0], pair[1])
		}
	}
}

// TestBuildWarnsOfNewerReleases uses an interpreter that reports versions.
func TestBuildWarnsOfNewerReleases(t *testing.T) {
	for _, row := range []struct{ gradio, spaces, want string }{
		{NewestTested.Gradio, NewestTested.Spaces, ""},
		{"4.44.1", "0.40.1", ""},
		{"7.0.0.dev1", "0.51.3", "gradio 7.0.0.dev1 is newer than the newest release that spacehost is tested with (gradio 6.31.0)"},
		{"5.49.1", "0.52.0", "spaces 0.52.0 is newer than the newest release that spacehost is tested with (spaces 0.52.0.dev3)"},
		{"7.0", "1.0", "gradio 7.0 and spaces 1.0 are newer than the newest releases that spacehost is tested with (gradio 6.31.0, spaces 0.52.0.dev3)"},
	} {
		python := filepath.Join(t.TempDir(), "python")
		script := fmt.Sprintf("#!/bin/sh\necho '{\"gradio\": \"%s\", \"spaces\": \"%s\", \"dir\": \"/\", \"pythonVersion\": \"3.11.7\"}'\n", row.gradio, row.spaces)
		if err := os.WriteFile(python, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		env, err := New(Config{Dir: t.TempDir(), Interpreter: python}).Build(context.Background(), Spec{})
		if err != nil {
			t.Fatal(err)
		}
		found := slices.DeleteFunc(env.Warnings, func(text string) bool { return !strings.Contains(text, "tested") })
		if row.want == "" && len(found) > 0 || row.want != "" && (len(found) != 1 || !strings.HasPrefix(found[0], row.want+";")) {
			t.Errorf("gradio %s, spaces %s: warnings %q, want %q", row.gradio, row.spaces, found, row.want)
		}
	}
}
