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

	"spacehost/internal/build"
)

// Lines beside those of gradios. A line name plus newSpaces is that Gradio with the pre-release of spaces. nextLine has the
// newest pre-release of every package; `make next` (SPACEHOST_TEST_NEXT=1) runs the stories of promised on it alone.
const (
	newSpaces = "+spaces-0.52"
	nextLine  = "next"
)

// newSpacesRequirement pins the pre-release of spaces to the file that was tested.
const newSpacesRequirement = "spaces==0.52.0.dev3 --hash=sha256:cc837ebbc3689277b00f4d098ce7962a17490b9b1efbb503e7fb495fae57f62c"

// nextRequirements allow pre-releases of these packages, because each specifier names one (PEP 440). The newest is installed.
const nextRequirements = "gradio[oauth,mcp]>=6.0.0.dev0\ngradio_client>=2.0.0.dev0\nspaces>=0.52.0.dev0\nhuggingface_hub>=2.0.0rc0\n"

// isNext reports whether `make next` runs the tests.
func isNext() bool { return os.Getenv("SPACEHOST_TEST_NEXT") != "" }

// newSpacesLines are the lines on which the stories of GPU calls are told with the pre-release of spaces: one in CI, all with
// `make next`.
func newSpacesLines() []string {
	if isNext() {
		return []string{"v4" + newSpaces, "v5" + newSpaces, "v6" + newSpaces}
	}
	return []string{"v6" + newSpaces}
}

// family returns the line of gradios whose Gradio this line has, or is closest to.
func family(line string) string {
	if line == nextLine {
		return "v6"
	}
	return strings.TrimSuffix(line, newSpaces)
}

// gradioOf returns the version of a line's Gradio.
func gradioOf(t testing.TB, line string) string {
	t.Helper()
	if line == nextLine {
		return builtEnvironment(t, line).Gradio
	}
	return gradios[family(line)]
}

// builtEnvironments has one environment for each line, built on first use.
var builtEnvironments = func() map[string]func() (*build.Environment, error) {
	all := map[string]func() (*build.Environment, error){nextLine: sync.OnceValues(buildNextEnvironment)}
	for line, gradio := range gradios {
		all[line] = sync.OnceValues(func() (*build.Environment, error) { return buildIn(gradio, sampleDir, false) })
		all[line+newSpaces] = sync.OnceValues(func() (*build.Environment, error) { return buildWith(gradio, newSpacesRequirement, false) })
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
	base, err := cache()
	if err != nil {
		return nil, err
	}
	b := build.New(build.Config{Dir: filepath.Join(base, "environments"), Progress: func(s build.Step) {
		if s.State == build.Started {
			fmt.Fprintf(os.Stderr, "building the test environment: %s\n", s.Text)
		}
	}})
	return b.Build(context.Background(), build.Spec{Gradio: gradio, Dir: dir}, rebuild)
}

// buildWith builds the sample's environment with further requirements, which are also installed first: an installer leaves an
// installed release as it is if that meets the requirements.
func buildWith(gradio, more string, rebuild bool) (*build.Environment, error) {
	dir, err := os.MkdirTemp("", "spacehost-environment-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	sample, err := os.ReadFile(filepath.Join(sampleDir, "requirements.txt"))
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"pre-requirements.txt": more + "\n", "requirements.txt": string(sample) + more + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return buildIn(gradio, dir, rebuild)
}

// buildNextEnvironment builds anew in each run, since the newest releases change. It prints what it found for docs/next.txt.
func buildNextEnvironment() (*build.Environment, error) {
	env, err := buildWith("", nextRequirements, true)
	if err != nil {
		fmt.Printf("next: the environment cannot be built: %v\n", err)
		return nil, err
	}
	const script = `import importlib.metadata as m; print(" ".join(n + " " + m.version(n) for n in ("gradio", "gradio_client", "spaces", "huggingface_hub")))`
	out, err := exec.Command(env.Python, "-c", script).CombinedOutput()
	fmt.Printf("next: %s", out)
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

// TestNewestTested: the releases that a start does not warn of are those that the tests run with.
func TestNewestTested(t *testing.T) {
	if build.NewestTested.Gradio != gradios["v6"] {
		t.Errorf("build.NewestTested has gradio %s, the tests run with %s", build.NewestTested.Gradio, gradios["v6"])
	}
	if want := "spaces==" + build.NewestTested.Spaces + " "; !strings.HasPrefix(newSpacesRequirement, want) {
		t.Errorf("build.NewestTested has spaces %s, the tests run with %s", build.NewestTested.Spaces, newSpacesRequirement)
	}
}

// TestStartWarnsOfANewerRelease: an interpreter that reports a newer Gradio runs, and the operator reads that it is untested.
func TestStartWarnsOfANewerRelease(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "python")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = -I ]; then %[1]s \"$@\" | sed 's/\"gradio\": \"%[2]s\"/\"gradio\": \"99.0.0\"/'; exit; fi\nexec %[1]s \"$@\"\n",
		environment(t), gradios["v6"])
	if err := os.WriteFile(newer, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := runProduct(t, leasesDir, "--python", newer)
	want := "warning: gradio 99.0.0 is newer than the newest release that spacehost is tested with (gradio " + gradios["v6"] + ")"
	if strings.Count(p.text(), want) != 1 || strings.Contains(p.text(), "spaces 0.51.3 is newer") {
		t.Errorf("the screen lacks %q or has more", want)
	}
}
