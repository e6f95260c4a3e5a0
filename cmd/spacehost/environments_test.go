package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
)

// newSpaces makes a line of another: the same Gradio with the pre-release of spaces.
const newSpaces = "+spaces-0.52"

// newSpacesRequirement pins the pre-release of spaces to the file that was tested.
const newSpacesRequirement = "spaces==0.52.0.dev3 --hash=sha256:cc837ebbc3689277b00f4d098ce7962a17490b9b1efbb503e7fb495fae57f62c"

// Requirements of `make next`. They allow pre-releases of these packages, because each specifier names one (PEP 440).
const (
	nextSpaces = "spaces>=0.52.0.dev0"
	nextAll    = "gradio[oauth,mcp]>=6.0.0.dev0\ngradio_client>=2.0.0.dev0\nhuggingface_hub>=2.0.0rc0\n" + nextSpaces
)

// isNext reports whether `make next` runs the tests (SPACEHOST_TEST_NEXT=1). Then line v6 has the newest release of every
// package, pre-releases included, and lines v4 and v5 have the newest spaces.
func isNext() bool { return os.Getenv("SPACEHOST_TEST_NEXT") != "" }

// newSpacesLines returns the lines on which the tests of GPU calls run with the pre-release of spaces: one in CI, all with
// `make next`.
func newSpacesLines() []string {
	if isNext() {
		return []string{"v4", "v5", "v6"}
	}
	return []string{"v6" + newSpaces}
}

// newestLine has the newest Gradio and spaces of this run.
func newestLine() string { return newSpacesLines()[len(newSpacesLines())-1] }

// gradioOf returns the version of a line's Gradio.
func gradioOf(t testing.TB, line string) string {
	t.Helper()
	if line == "v6" && isNext() {
		return builtEnvironment(t, line).Gradio
	}
	return gradioVersions[strings.TrimSuffix(line, newSpaces)]
}

// builtEnvironments has one environment for each line, built on first use.
var builtEnvironments = func() map[string]func() (*build.Environment, error) {
	all := map[string]func() (*build.Environment, error){}
	for line, gradio := range gradioVersions {
		all[line] = sync.OnceValues(func() (*build.Environment, error) {
			if isNext() {
				return buildNext(line)
			}
			return buildIn(gradio, sampleDir, false)
		})
		all[line+newSpaces] = sync.OnceValues(func() (*build.Environment, error) {
			return buildWith(gradio, sampleDir, newSpacesRequirement, false)
		})
	}
	return all
}()

// environment returns an interpreter with the real gradio 6 and spaces.
func environment(t testing.TB) string { return environmentOf(t, "v6") }

// environmentOf returns the interpreter of a line.
func environmentOf(t testing.TB, line string) string {
	t.Helper()
	return builtEnvironment(t, line).Python
}

func builtEnvironment(t testing.TB, line string) *build.Environment {
	t.Helper()
	env, err := builtEnvironments[line]()
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// buildEnvironment returns an interpreter with any release of Gradio.
func buildEnvironment(gradio string) (string, error) {
	env, err := buildIn(gradio, sampleDir, false)
	if err != nil {
		return "", err
	}
	return env.Python, nil
}

// buildIn builds the environment of the Space in dir with the product's own builder. It is kept between runs.
func buildIn(gradio, dir string, rebuild bool) (*build.Environment, error) {
	base, err := buildtest.Cache()
	if err != nil {
		return nil, err
	}
	b := build.New(build.Config{Dir: filepath.Join(base, "environments"), Progress: func(s build.Step) {
		if s.State == build.Started {
			fmt.Fprintf(os.Stderr, "building the test environment: %s\n", s.Text)
		}
	}})
	spec := build.Spec{Gradio: gradio, Dir: dir}
	if rebuild {
		spec.BuiltAfter = time.Now()
	}
	return b.Build(context.Background(), spec)
}

// buildWith builds the environment of the Space in dir with further requirements, which are also installed first: an installer keeps an
// installed release that meets the requirements.
func buildWith(gradio, dir, more string, rebuild bool) (*build.Environment, error) {
	own, err := os.ReadFile(filepath.Join(dir, "requirements.txt"))
	if err != nil {
		return nil, err
	}
	made, err := os.MkdirTemp("", "spacehost-environment-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(made)
	for name, text := range map[string]string{"pre-requirements.txt": more + "\n", "requirements.txt": string(own) + more + "\n"} {
		if err := os.WriteFile(filepath.Join(made, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return buildIn(gradio, made, rebuild)
}

// buildNext builds a line for `make next`: anew in each run, since the newest releases change. It prints what it found for
// docs/next.txt.
func buildNext(line string) (*build.Environment, error) {
	gradio, requirements := gradioVersions[line], nextSpaces
	if line == "v6" {
		gradio, requirements = "", nextAll
	}
	env, err := buildWith(gradio, sampleDir, requirements, true)
	if err != nil {
		fmt.Printf("next: line %s cannot be built: %v\n", line, err)
		return nil, err
	}
	const script = `import importlib.metadata as m; print(", ".join(n + " " + m.version(n) for n in ("gradio", "gradio_client", "spaces", "huggingface_hub")))`
	out, err := exec.Command(env.Python, "-c", script).CombinedOutput()
	fmt.Printf("next: line %s has %s", line, out)
	return env, err
}

// javaScriptClient returns the version of @gradio/client that the tests call with.
var javaScriptClient = sync.OnceValues(func() (string, error) {
	if !isNext() {
		return "2.7.0", nil
	}
	out, err := exec.Command("npm", "view", "@gradio/client", "versions", "--json").Output()
	if err != nil {
		return "", fmt.Errorf("list the versions of @gradio/client: %w", err)
	}
	var versions []string // in the order of their precedence, pre-releases included
	if err := json.Unmarshal(out, &versions); err != nil || len(versions) == 0 {
		return "", cmp.Or(err, fmt.Errorf("npm lists no version of @gradio/client: %s", out))
	}
	newest := versions[len(versions)-1]
	fmt.Printf("next: @gradio/client %s\n", newest)
	return newest, nil
})

// TestNewestTested checks that build.NewestTested names the releases that the tests run with.
func TestNewestTested(t *testing.T) {
	if build.NewestTested.Gradio != gradioVersions["v6"] {
		t.Errorf("build.NewestTested has gradio %s, the tests run with %s", build.NewestTested.Gradio, gradioVersions["v6"])
	}
	if want := "spaces==" + build.NewestTested.Spaces + " "; !strings.HasPrefix(newSpacesRequirement, want) {
		t.Errorf("build.NewestTested has spaces %s, the tests run with %s", build.NewestTested.Spaces, newSpacesRequirement)
	}
}

// TestStartWarnsOfANewerRelease starts a Space with an interpreter that reports a newer Gradio.
func TestStartWarnsOfANewerRelease(t *testing.T) {
	t.Parallel()
	newer := filepath.Join(t.TempDir(), "python")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = -I ]; then %[1]s \"$@\" | sed 's/\"gradio\": \"%[2]s\"/\"gradio\": \"99.0.0\"/'; exit; fi\nexec %[1]s \"$@\"\n",
		environment(t), gradioOf(t, "v6"))
	if err := os.WriteFile(newer, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := runProduct(t, leasesDir, "--python", newer)
	want := "warning: gradio 99.0.0 is newer than the newest release that spacehost is tested with (gradio " + gradioVersions["v6"] + ")"
	if strings.Count(p.text(), want) != 1 {
		t.Errorf("the screen has %d times %q, want it once", strings.Count(p.text(), want), want)
	}
}
