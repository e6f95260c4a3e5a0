package check

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
)

// realPython returns an interpreter with gradio and the real spaces package, built once for all tests of the program.
var realPython = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("SPACEHOST_TEST_PYTHON"); given != "" {
		return given, nil
	}
	cache, err := buildtest.Cache()
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp("", "bare-space-") // without requirements: only gradio and spaces
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	builder := build.New(build.Config{Dir: filepath.Join(cache, "environments"), LogPath: filepath.Join(folder, "build.log")})
	env, err := builder.Build(ctx, build.Spec{Gradio: "6.31.0", Dir: folder})
	return env.Python, err
})

// observed is what the harness prints.
type observed struct {
	Import    string
	Reports   int
	Schedules []struct{ Seconds, Size string }
	Calls     []struct{ Value, Error string }
}

// errors returns the errors of the import and of the calls.
func (o observed) errors() string {
	texts := []string{o.Import}
	for _, call := range o.Calls {
		texts = append(texts, call.Error)
	}
	return strings.Join(texts, " | ")
}

// observe runs apps with the real spaces package, and returns what happened to each.
func observe(t *testing.T, python string, cases []realCase) []observed {
	t.Helper()
	var input []map[string]any
	for _, c := range cases {
		input = append(input, map[string]any{"folder": spaceOf(t, c.space), "calls": json.RawMessage(c.calls)})
	}
	data, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	home := t.TempDir()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, python, filepath.Join("testdata", "zerogpu", "harness.py"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "HF_HUB_OFFLINE=1", "GRADIO_ANALYTICS_ENABLED=False",
		"GRADIO_TEMP_DIR=" + filepath.Join(home, "gradio"), "NO_PROXY=127.0.0.1,localhost", "PYTHONDONTWRITEBYTECODE=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(data), &stdout, &stderr, 5*time.Second
	err = cmd.Run()
	var all []observed
	if json.Unmarshal(stdout.Bytes(), &all) != nil || len(all) != len(cases) {
		t.Fatalf("%v\n%s\n%.3000s", err, stdout.String(), stderr.String())
	}
	return all
}

// realCase is one app and the calls of its functions, as the harness reads them. want is a part of what is observed.
type realCase struct{ rule, space, calls, want string }

// expect compares what happened to the apps with what the rules say.
func expect(t *testing.T, python string, cases []realCase) {
	t.Helper()
	for i, o := range observe(t, python, cases) {
		if got := o.summary(); !strings.Contains(got, cases[i].want) {
			t.Errorf("%s, %s: %s, want %s", cases[i].rule, cases[i].space, got, cases[i].want)
		}
	}
}

// spaceOf returns the folder of a Space in testdata/spaces, or of one in the table of broken ones.
func spaceOf(t *testing.T, name string) string {
	t.Helper()
	for _, row := range broken {
		if row.name == name {
			return writeFiles(t, row.files)
		}
	}
	if filepath.IsAbs(name) {
		return name
	}
	dir, err := filepath.Abs(filepath.Join("testdata", "spaces", name))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRealFailures shows that what the rules call an error fails with the real spaces package in ZeroGPU's environment.
func TestRealFailures(t *testing.T) {
	python, err := realPython()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, python, []realCase{
		{"A606", "A-health-no-launch", `[]`, "no report"},
		{"A305", "A-health-no-gpu-function", `[]`, "no report"},
		{"A311", "D-fastapi-route-gpu", `[]`, "no report"},
		{"G307", "A-health-async-gpu", `[]`, "NotImplementedError"},
		{"G311", "G-select-data", `[["pick", "$event"]]`, "GPU task aborted"},
		{"G312", "G-lambda-arg", `[["handler", "a"]]`, "PicklingError"},
		{"G312", "G312 in other forms", `[["first", "a"]]`, "PicklingError"},
		{"G312", "G312 in other forms", `[["second", "a"]]`, "PicklingError"},
		{"G312", "G312 in other forms", `[["fourth", "a"]]`, "PicklingError"},
		{"G317", "B-global-mutation", `[["add", "x"], ["show"]]`, "'[]'"},
		{"G321", "processes and nothing else", `[["run", "a"]]`, "AssertionError"},
		{"H402", "H-string-duration", `[["run", "a"]]`, "TypeError: unsupported type for timedelta seconds component: str"},
		{"H403", "H-dynamic-wrong-signature", `[["run", "a", 1, 2, null]]`, "TypeError: get_duration() takes 2 positional arguments but 4 were given"},
		{"H403", "H403 of a handler's call", `[["handler", "a"]]`, "TypeError: seconds() got an unexpected keyword argument 'seed'"},
		{"H404", "H404 text and coroutine", `[["run", "a"]]`, "TypeError: unsupported type for timedelta seconds component: str"},
		{"H404", "H404 text and coroutine", `[["other", "a"]]`, "TypeError: unsupported type for timedelta seconds component: coroutine"},
		{"H404", "H404 nothing", `[["run", "a"]]`, "requested 60 s"},
		{"H405", "H405 days and negative", `[["run", "a"]]`, "requested 0 s"},
		{"H405", "H405 days and negative", `[["other", "a"]]`, "requested 86399 s"},
		{"H408", "H408 by position", `[["run", "a"]]`, "requested 60 s of size 60"},
		{"S600", "S600 in a module", `[]`, "SyntaxError"},
		{"S605", "S605 name and module", `[]`, "ImportError: cannot import name 'save' from 'pkg.helpers'"},
		{"S605", "S605 relative import of the app", `[]`, "ImportError: attempted relative import with no known parent package"},
		{"", "B-drift-unpinned-sdk", `[]`, "TypeError"},
		{"", "G-overstay", `[]`, "1 report"},
	})
}

// summary describes an observation in one line.
func (o observed) summary() string {
	parts := []string{o.errors()}
	if o.Import == "" && o.Reports == 0 {
		parts = append(parts, "no report")
	} else if o.Reports == 1 {
		parts = append(parts, "1 report")
	}
	for _, s := range o.Schedules {
		parts = append(parts, "requested "+s.Seconds+" s of size "+s.Size)
		if s.Size == "" {
			parts = append(parts, "requested "+s.Seconds+" s")
		}
	}
	for _, call := range o.Calls {
		parts = append(parts, "value "+call.Value)
	}
	return strings.Join(parts, "; ")
}
