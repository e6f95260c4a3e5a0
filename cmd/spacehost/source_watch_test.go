package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunWatch edits a Space while it runs: a change, a mistake, and its correction.
func TestRunWatch(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "edited")
	if err := os.CopyFS(folder, os.DirFS("testdata/spaces/scripts")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "app.py")
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := startProductWith(t, nil, t.TempDir(), folder, "--watch")
	t.Cleanup(p.stop)
	p.awaitReady()
	edit := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stage := func(want string) {
		t.Helper()
		eventually(t, "the Space is "+want, patience, func() bool { return p.health().Spaces[0].Stage == want })
	}
	before := p.health().Spaces[0].PID
	edit(bytes.Replace(source, []byte("json.dumps(variables["), []byte(`"edited " + json.dumps(variables[`), 1))
	eventually(t, "the Space restarts", patience, func() bool { s := p.health().Spaces[0]; return s.Stage == "RUNNING" && s.PID != before })
	if got := p.client().ok("/run", "result = 1"); got != "edited 1" {
		t.Errorf("after a change: %q", got)
	}
	edit([]byte("import gradio as gr\ndef broken(:\n"))
	stage("RUNTIME_ERROR")
	edit(source)
	stage("RUNNING")
	if got := p.client().ok("/run", "result = 2"); got != "2" {
		t.Errorf("after the correction: %q", got)
	}
	for _, want := range []string{"app.py changed; the Space restarts.", "SyntaxError"} {
		if !strings.Contains(p.text(), want) {
			t.Errorf("the screen does not say %q:\n%s", want, p.text())
		}
	}
}
