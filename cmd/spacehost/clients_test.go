package main

import (
	"encoding/json"
	"fmt"
	"image"
	_ "image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/feature/featuretest"
)

// The sample Space starts once per line of Gradio, for the tests that only call it.
var (
	sampleHosts    = map[string]*product{}
	sampleCleanups []func()
)

// sampleT replaces the test that starts the sample, because the sample outlives it. An error at the sample's end fails the
// whole run.
type sampleT struct{ testing.TB }

var sampleFailed bool

func (s sampleT) Cleanup(f func())                { sampleCleanups = append(sampleCleanups, f) }
func (s sampleT) Helper()                         {}
func (s sampleT) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (s sampleT) Failed() bool                    { return sampleFailed }
func (s sampleT) Errorf(format string, args ...any) {
	sampleFailed = true
	s.Logf(format, args...)
}

func sample(t *testing.T) *product { return sampleOn(t, "v6") }

// sampleOn returns the shared sample on a line of Gradio. Tests that use it run one after the other.
func sampleOn(t *testing.T, line string) *product {
	t.Helper()
	environmentOf(t, line)
	p, started := sampleHosts[line]
	if !started {
		sampleHosts[line] = nil
		state, err := os.MkdirTemp("", "spacehost-sample")
		if err != nil {
			t.Fatal(err)
		}
		sampleCleanups = append(sampleCleanups, func() { os.RemoveAll(state) })
		p = startOn(sampleT{t}, line, state, onGradio(t, filepath.Join(state, "folder"), line, sampleDir), "--tier", "unlimited")
		sampleHosts[line] = p
		sampleCleanups = append(sampleCleanups, p.stop)
	}
	if p == nil || p.URL == "" {
		t.Fatal("the sample did not start")
	}
	// From here on, failures belong to the present test.
	return &product{ReadyLine: p.ReadyLine, t: t, line: line, cmd: p.cmd, ended: p.ended}
}

// eachSample runs a test against the sample on every line of Gradio.
func eachSample(t *testing.T, test func(t *testing.T, p *product)) {
	for _, line := range testedLines {
		t.Run(line, func(t *testing.T) { test(t, sampleOn(t, line)) })
	}
}

// closeSample ends the samples and reports whether they ended without errors.
func closeSample() bool {
	slices.Reverse(sampleCleanups)
	for _, f := range sampleCleanups {
		f()
	}
	return !sampleFailed
}

func TestPythonClientCallsEveryFunction(t *testing.T) { eachSample(t, pythonClientCallsEveryFunction) }

func pythonClientCallsEveryFunction(t *testing.T, p *product) {
	c := p.client()
	if got := c.ok("/greet", "python"); !strings.HasPrefix(got, "Hello python, from GPU-") {
		t.Errorf("/greet: got %q, want the UUID of a leased GPU in it", got)
	}
	if got := c.call("/count", 3); len(got.Steps) < 3 || text(got.Steps[0]) != "1 " || text(got.Value) != "1 2 3 " {
		t.Errorf("/count: steps %s, value %s", got.Steps, got.Value)
	}
	if got := c.call("/steps", 4); text(got.Value) != "4 steps" || len(got.Progress) == 0 {
		t.Errorf("/steps: value %s, progress %v", got.Value, got.Progress)
	}
	if strings.HasPrefix(p.line, "v4") {
		t.Log("SKIPPED: /notify sets the title of a toast, which Gradio 4 lacks")
	} else if got := c.call("/notify", "toast"); text(got.Value) != "sent" || !slices.Contains(got.Logs, "toast") {
		t.Errorf("/notify: value %s, logs %q", got.Value, got.Logs)
	}
	if got := c.ok("/sleep", 1); got != "slept 1 s, asked for 2 s" {
		t.Errorf("/sleep: %q", got)
	}
	checkImage(t, c.ok("/picture", 0.25))
}

func checkImage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP" { // Gradio's default format, which Go's image package lacks
		return
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	config, _, err := image.DecodeConfig(file)
	if err != nil || config.Width != 256 || config.Height != 256 {
		t.Errorf("/picture: %+v, %v", config, err)
	}
}

// requireProgram returns the path of the first installed program. Without one it skips the test, or fails it if
// SPACEHOST_REQUIRE_ALL is set.
func requireProgram(t *testing.T, what string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	featuretest.Missing(t, "%s is not installed (looked for %s)", what, strings.Join(names, ", "))
	return ""
}

type jsLog struct{ Log, Title, Level string }

// jsCall is the report of testdata/clients/client.mjs on one call.
type jsCall struct {
	Steps    []json.RawMessage
	Logs     []jsLog
	Progress [][]any
	Error    *struct{ Message, Title string }
}

func TestJavaScriptClientCallsEveryFunction(t *testing.T) {
	eachSample(t, javaScriptClientCallsEveryFunction)
}

func javaScriptClientCallsEveryFunction(t *testing.T, p *product) {
	node := requireProgram(t, "Node", "node", "nodejs")
	dir := nodePackages(t, "client.mjs")
	cmd := exec.Command(node, filepath.Join(dir, "client.mjs"), p.URL)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var calls map[string]jsCall
	if err := json.Unmarshal(out, &calls); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	want := map[string]string{
		"count": "1 2 3 ", "steps": "3 steps", "sleep": "slept 1 s, asked for 2 s", "notify": "sent",
	}
	for name, value := range want {
		steps := calls[name].Steps
		if len(steps) == 0 || text(steps[len(steps)-1]) != value {
			t.Errorf("%s: got %s, want %q as the last step", name, steps, value)
		}
	}
	checkJS(t, calls)
}

func checkJS(t *testing.T, calls map[string]jsCall) {
	t.Helper()
	if steps := calls["greet"].Steps; len(steps) != 1 || !strings.HasPrefix(text(steps[0]), "Hello js, from GPU-") {
		t.Errorf("greet: %s", steps)
	}
	if got := calls["count"].Steps; len(got) < 3 || text(got[0]) != "1 " {
		t.Errorf("count: %s, want every step", got)
	}
	if steps := calls["picture"].Steps; len(steps) != 1 || !strings.Contains(string(steps[0]), "/gradio_api/file=") {
		t.Errorf("picture: got %s, want a file of this host", steps)
	}
	if len(calls["steps"].Progress) == 0 {
		t.Error("steps: no progress")
	}
	// The worker of an earlier call may still be ending: then the client also hears that it waits for the GPU.
	logs := slices.DeleteFunc(calls["notify"].Logs, func(l jsLog) bool { return l.Title == "ZeroGPU queue" })
	if len(logs) != 1 || logs[0].Log != "from js" || logs[0].Title != "From the GPU" {
		t.Errorf("notify: logs %+v", logs)
	}
	if e := calls["overstay"].Error; e == nil || e.Message != "GPU task aborted" || e.Title != "ZeroGPU worker error" {
		t.Errorf("overstay: got %+v, want ZeroGPU's error text", e)
	}
}

// nodePackages returns a folder with @gradio/client and these scripts. The folder is kept between runs.
func nodePackages(t *testing.T, names ...string) string {
	t.Helper()
	npm := requireProgram(t, "npm", "npm")
	version, err := javaScriptClient()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cacheDir(t), "node-gradio-client-"+version)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@gradio", "client", "package.json")); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(npm, "install", "--prefix", dir, "--no-fund", "--no-audit", "@gradio/client@"+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("npm install: %v\n%s", err, out)
		}
	}
	for _, name := range names {
		script, err := os.ReadFile(filepath.Join("testdata", "clients", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), script, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
