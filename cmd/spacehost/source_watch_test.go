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
	if got := p.client().ok("/run_on_gpu", "result = 0"); got != "0" { // beside the standby
		t.Errorf("before a change: %q", got)
	}
	before := p.health().Spaces[0].PID
	edit(bytes.Replace(source, []byte("json.dumps(variables["), []byte(`"edited " + json.dumps(variables[`), 1))
	eventually(t, "the Space restarts", patience, func() bool { s := p.health().Spaces[0]; return s.Stage == "RUNNING" && s.PID != before })
	if got := p.client().ok("/run", "result = 1"); got != "edited 1" {
		t.Errorf("after a change: %q", got)
	}
	if got := p.client().ok("/run_on_gpu", "result = 1"); got != "edited 1" {
		t.Errorf("a GPU function after a change: %q", got)
	}
	edit([]byte("import gradio as gr\ndef broken(:\n"))
	stage("RUNTIME_ERROR")
	edit(source)
	stage("RUNNING")
	if got := p.client().ok("/run", "result = 2"); got != "2" {
		t.Errorf("after the correction: %q", got)
	}
	readme := filepath.Join(folder, "README.md")
	rewrite := func(text, note string) {
		t.Helper()
		if err := os.WriteFile(readme, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		eventually(t, note, patience, func() bool { return strings.Contains(p.text(), note) })
	}
	before = p.health().Spaces[0].PID
	rewrite("---\nsdk: gradio\nsdk_version: nine\napp_file: app.py\n---\n", "README.md was not applied. The Space continues as before the change.")
	if now := p.health().Spaces[0].PID; now != before {
		t.Errorf("a wrong README.md restarts the Space: pid %d, before %d", now, before)
	}
	rewrite("---\ntitle: Other\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n", "README.md changed; the Space starts with it.")
	eventually(t, "the Space starts again", patience, func() bool { s := p.health().Spaces[0]; return s.Stage == "RUNNING" && s.PID != before })
	if got := p.client().ok("/run", "result = 3"); got != "3" {
		t.Errorf("after changes of README.md: %q", got)
	}
	for want, times := range map[string]int{
		"app.py changed; the Space restarts.": 3, "SyntaxError: ": 1, "It starts again when its code changes.": 1,
	} {
		if got := strings.Count(p.text(), want); got != times {
			t.Errorf("the screen shows %q %d times, want %d:\n%s", want, got, times, p.text())
		}
	}
}
