package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// patience is the limit of every wait. It is long enough for a loaded two-core machine.
const patience = 90 * time.Second

// killPatience is the limit of waits after a kill, of which many follow each other: with a load of 35 per CPU, an app took a minute to
// start.
const killPatience = 3 * patience

// eventually polls until holds returns true, and fails the test after the limit.
func eventually(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("not reached within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// gradioVersions maps the lines of Gradio under test to the versions that were captured.
var gradioVersions = map[string]string{"v4": "4.44.1", "v5": "5.49.1", "v6": "6.31.0"}

// testedLines are the lines whose pages and traffic are compared with those of stock Gradio, and that the clients call.
// lines_test.go covers the main path of all three.
var testedLines = []string{"v5", "v6"}

// allLines returns all with `make lines` (SPACEHOST_LINES=all). Otherwise only the newest line is tested.
func allLines(all ...string) []string {
	if os.Getenv("SPACEHOST_LINES") == "all" {
		return all
	}
	return all[len(all)-1:]
}

// eachLine runs a test on every tested line of Gradio with `make lines`, and on the newest otherwise. The lines run in parallel,
// because the tests mostly wait.
func eachLine(t *testing.T, test func(t *testing.T, line string)) {
	inParallel(t, allLines(testedLines...), test)
}

func inParallel(t *testing.T, lines []string, test func(t *testing.T, line string)) {
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			test(t, line)
		})
	}
}

// eachLineInTurn runs the lines one after the other, for tests that measure times.
func eachLineInTurn(t *testing.T, test func(t *testing.T, line string)) {
	for _, line := range allLines(testedLines...) {
		t.Run(line, func(t *testing.T) { test(t, line) })
	}
}

// runOn starts `spacehost run` on a copy of the Space whose README.md requires this line's Gradio. The product's clients use the
// same line.
func runOn(t *testing.T, line, space string, args ...string) *product {
	t.Helper()
	p := startOn(t, line, t.TempDir(), onGradio(t, t.TempDir(), line, space), args...)
	t.Cleanup(p.stop)
	p.awaitReady()
	return p
}

// startOn is startProduct with this line's Gradio.
func startOn(t testing.TB, line, state, dir string, args ...string) *product {
	t.Helper()
	p := startProduct(t, state, dir, append(args, "--python", environmentOf(t, line))...)
	p.line = line
	if want := gradioOf(t, line); p.URL != "" && p.Spaces[0].Gradio != want {
		t.Errorf("gradio %s is running, want %s", p.Spaces[0].Gradio, want)
	}
	return p
}

// onGradio copies a Space into the folder to, where the Space can write. The copy's README.md requires this line's Gradio.
func onGradio(t testing.TB, to, line, space string) string {
	t.Helper()
	dir := filepath.Join(to, filepath.Base(space))
	if err := os.CopyFS(dir, os.DirFS(space)); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(dir, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	rewritten := bytes.Replace(text, []byte("sdk_version: "+gradioVersions["v6"]), []byte("sdk_version: "+gradioOf(t, line)), 1)
	if gradioOf(t, line) != gradioVersions["v6"] && bytes.Equal(rewritten, text) {
		t.Fatalf("%s does not require gradio %s", readme, gradioVersions["v6"])
	}
	if err := os.WriteFile(readme, rewritten, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
