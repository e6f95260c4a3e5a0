package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spacehost/internal/build"
)

// patience bounds every wait: what takes longer on a loaded two-core machine is broken.
const patience = 90 * time.Second

// eventually waits for a state.
func eventually(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// gradios are the lines of Gradio that the tests run, by the versions that were captured.
var gradioVersions = map[string]string{"v4": "4.44.1", "v5": "5.49.1", "v6": "6.31.0"}

// promised are those on which every story is told; of v4 lines_test.go, the captures, pages and clients tell some.
var testedLines = []string{"v5", "v6"}

// builtEnvironments has one for each line, made when it is first asked for.
var builtEnvironments = func() map[string]func() (string, error) {
	all := map[string]func() (string, error){}
	for line, gradio := range gradioVersions {
		all[line] = sync.OnceValues(func() (string, error) { return buildEnvironment(gradio) })
	}
	return all
}()

// environment returns an interpreter with the real gradio 6 and spaces.
func environment(t testing.TB) string { return environmentOf(t, "v6") }

// environmentOf returns one with the Gradio of that line.
func environmentOf(t testing.TB, line string) string {
	t.Helper()
	python, err := builtEnvironments[line]()
	if err != nil {
		t.Fatal(err)
	}
	return python
}

// buildEnvironment makes it with the product's own builder and the sample's requirements.txt; it is kept
// between runs.
func buildEnvironment(gradio string) (string, error) {
	dir, err := cache()
	if err != nil {
		return "", err
	}
	b := build.New(build.Config{Dir: filepath.Join(dir, "environments"), Progress: func(s build.Step) {
		if s.State == build.Started {
			fmt.Fprintf(os.Stderr, "building the test environment: %s\n", s.Text)
		}
	}})
	env, err := b.Build(context.Background(), build.Spec{Gradio: gradio, Dir: sampleDir}, false)
	if err != nil {
		return "", err
	}
	return env.Python, nil
}

// eachLine runs a test against every line of Gradio. The lines run at the same time: most of it is waiting.
func eachLine(t *testing.T, test func(t *testing.T, line string)) {
	for _, line := range testedLines {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			test(t, line)
		})
	}
}

// eachLineAlone is for tests that hold times: one line after the other.
func eachLineInTurn(t *testing.T, test func(t *testing.T, line string)) {
	for _, line := range testedLines {
		t.Run(line, func(t *testing.T) { test(t, line) })
	}
}

// runOn starts `spacehost run` on a copy of the Space that asks for this line's Gradio. Its clients are of that
// line too.
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
	if p.URL != "" && p.Spaces[0].Gradio != gradioVersions[line] {
		t.Errorf("gradio %s runs, want %s", p.Spaces[0].Gradio, gradioVersions[line])
	}
	return p
}

// onGradio copies a Space below to, so that it may write into its folder, with a README.md that asks for this
// line's Gradio.
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
	rewritten := bytes.Replace(text, []byte("sdk_version: "+gradioVersions["v6"]), []byte("sdk_version: "+gradioVersions[line]), 1)
	if line != "v6" && bytes.Equal(rewritten, text) {
		t.Fatalf("%s does not ask for gradio %s", readme, gradioVersions["v6"])
	}
	if err := os.WriteFile(readme, rewritten, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
