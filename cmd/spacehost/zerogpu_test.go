package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"spacehost/internal/cli"
)

// writeSpace creates a Space for a line of Gradio from the text of its app.py.
func writeSpace(t *testing.T, line, app string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "written")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	readme := fmt.Sprintf("---\nsdk: gradio\nsdk_version: %s\n---\n", gradioVersions[line])
	for name, text := range map[string]string{"README.md": readme, "app.py": app} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	noGPUFunctionApp = `
import gradio as gr
import spaces

def greet(name):
    return "Hello " + name

gr.Interface(greet, "text", "text", api_name="greet").launch()
`
	mountedApp = `
import fastapi
import gradio as gr
import spaces
import uvicorn

@spaces.GPU
def greet(name):
    return "Hello " + name

app = gr.mount_gradio_app(fastapi.FastAPI(), gr.Interface(greet, "text", "text", api_name="greet"), path="/")
uvicorn.run(app, host="0.0.0.0", port=7860)
`
	gpuFunctionApp = `
import gradio as gr
import spaces

@spaces.GPU(duration=5)
def greet(name):
    return "Hello " + name

gr.Interface(greet, "text", "text", api_name="greet").launch()
`
)

const noGPUFunction = "No @spaces.GPU function detected during startup"

// TestNoGPUFunctionDetected checks an app that sends no /startup-report. ZeroGPU stops it; here it runs with a warning, and
// --strict stops it.
func TestNoGPUFunctionDetected(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, app, next string }{
		{"none decorated", noGPUFunctionApp, "Decorate a function with @spaces.GPU"},
		{"mounted", mountedApp, "It has GPU functions (greet), but the spaces package reports them in launch() alone"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := writeSpace(t, "v6", row.app)
			p := runProduct(t, dir)
			warning := fmt.Sprintf("written: warning: ZeroGPU stops this Space with %q. %s", noGPUFunction, row.next)
			eventually(t, "the screen shows "+warning, patience, func() bool { return strings.Contains(p.text(), warning) })
			if got := p.client().ok("/greet", "you"); got != "Hello you" {
				t.Errorf("the Space answers %q", got)
			}
			if got := strings.Count(p.text(), warning); got != 1 {
				t.Errorf("the warning is there %d times, want once", got)
			}

			strict := startProduct(t, t.TempDir(), dir, "--strict")
			<-strict.ended
			if code := strict.cmd.ProcessState.ExitCode(); code != cli.ExitRuntime {
				t.Errorf("with --strict, exit code %d, want %d", code, cli.ExitRuntime)
			}
			if text := strict.text(); !strings.Contains(text, "spacehost: RUNTIME_ERROR: "+noGPUFunction+".\n") || !strings.Contains(text, "\n  "+row.next) {
				t.Error("with --strict, the error lacks the words of ZeroGPU or the next step")
			}
			if left := processesOf(strict.State); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

// TestGPUFunctionDetected checks that neither a Space with a GPU function nor one without ZeroGPU is warned about.
func TestGPUFunctionDetected(t *testing.T) {
	t.Parallel()
	p := runProduct(t, writeSpace(t, "v6", gpuFunctionApp), "--strict")
	if strings.Contains(p.text(), noGPUFunction) {
		t.Error("a Space with a GPU function is warned about")
	}
	p = runProduct(t, writeSpace(t, "v6", noGPUFunctionApp), "--strict", "--gpus", "none")
	if strings.Contains(p.text(), noGPUFunction) {
		t.Error("a Space without ZeroGPU is warned about")
	}
}

// TestStrictServe checks the key of the configuration: the Space does not run, and the others continue.
func TestStrictServe(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "spacehost.yaml")
	text := fmt.Sprintf("gpus: mock:1xH200\nstrict: true\naddress: 127.0.0.1:0\nconsole: 127.0.0.1:0\nspaces:\n  - folder: %s\n    name: refused\n    address: 127.0.0.1:0\n    python: %s\n  - folder: %s\n    name: accepted\n    address: 127.0.0.1:0\n    python: %s\n",
		writeSpace(t, "v6", noGPUFunctionApp), environment(t), writeSpace(t, "v6", gpuFunctionApp), environment(t))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, t.TempDir(), "serve", "--config", config)
	t.Cleanup(p.stop)
	eventually(t, "the refused Space is reported", patience, func() bool {
		return strings.Contains(p.text(), "refused: RUNTIME_ERROR: "+noGPUFunction)
	})
}

const examplesApp = `
import gradio as gr
import spaces

@spaces.GPU(duration=5)
def shout(text):
    print("shout", text, flush=True)
    return text.upper()

with gr.Blocks() as demo:
    field = gr.Textbox(elem_id="field")
    loud = gr.Textbox(elem_id="loud")
    gr.Examples([["quiet one"], ["quiet two"]], field, loud, fn=shout, elem_id="samples")
demo.launch()
`

// TestExamplesAreCachedLazily checks the defaults of ZeroGPU in a real browser: no example runs at the start, and a click on one
// runs it once and shows its result. The next start forgets the results, as a new container of the Hub does.
func TestExamplesAreCachedLazily(t *testing.T) {
	t.Parallel()
	eachLineInTurn(t, func(t *testing.T, line string) {
		dir := writeSpace(t, line, examplesApp)
		for start := range 2 {
			p := startOn(t, line, t.TempDir(), dir)
			t.Cleanup(p.stop)
			p.awaitReady()
			if strings.Contains(p.text(), "shout quiet") {
				t.Errorf("start %d: an example ran before a click", start)
			}
			ctx, _ := browser(t)
			for visit := range 2 {
				if err := clickExample(ctx, p.URL); err != nil {
					t.Errorf("start %d, visit %d shows no result: %v", start, visit, err)
				}
			}
			p.stop()
			if got := strings.Count(p.text(), "shout quiet one"); got != 1 {
				t.Errorf("start %d: the example ran %d times, want once", start, got)
			}
		}
	})
}

// clickExample opens the page, clicks on the first example and waits for its result.
func clickExample(ctx context.Context, url string) error {
	example := chromedp.CSS("#samples button.gallery-item, #samples tbody tr")
	if err := chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitVisible(example), chromedp.Click(example)); err != nil {
		return err
	}
	_, err := chromedp.Run(ctx, chromedp.PollFunction[bool](
		`() => document.querySelector("#loud textarea, #loud input").value === "QUIET ONE"`, chromedp.WithPollingTimeout(30*time.Second)))
	return err
}

const addressApp = `
import gradio as gr
import spaces

@spaces.GPU
def greet(name):
    return "Hello " + name

gr.Interface(greet, "text", "text", api_name="greet").launch(%s)
`

// TestIgnoredAddress checks that an address that the Hub would not find is named, and that the Space runs all the same.
func TestIgnoredAddress(t *testing.T) {
	const port, name = "spacehost: launch(server_port=8080): the Hub expects a Gradio Space on port 7860", "spacehost: launch(server_name='127.0.0.1'): the Hub reaches a Space from outside"
	for _, row := range []struct {
		arguments string
		want      []string
	}{
		{`server_port=8080, server_name="127.0.0.1"`, []string{port, name}},
		{`server_port=7860, server_name="0.0.0.0"`, nil},
	} {
		p := runProduct(t, writeSpace(t, "v6", fmt.Sprintf(addressApp, row.arguments)))
		if got := p.client().ok("/greet", "you"); got != "Hello you" {
			t.Errorf("launch(%s) answers %q", row.arguments, got)
		}
		for _, want := range row.want {
			eventually(t, "the screen shows "+want, patience, func() bool { return strings.Contains(p.text(), want) })
			if strings.Count(p.text(), want) != 1 {
				t.Errorf("launch(%s) does not print %q once", row.arguments, want)
			}
		}
		if got := strings.Count(p.text(), "spacehost: launch("); got != len(row.want) {
			t.Errorf("launch(%s) prints %d sentences, want %d", row.arguments, got, len(row.want))
		}
	}
}

// TestDefaults checks that a start without flags has the hardware and the limits of ZeroGPU's newest month, and names them.
func TestDefaults(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/driver/nvidia"); err == nil {
		t.Skip("SKIPPED: this machine has an NVIDIA driver, so its GPUs are not simulated")
	}
	p := startCommand(t, t.TempDir(), "run", lineDir, "--addr", ":0", "--console-addr", ":0", "--python", environment(t))
	t.Cleanup(p.stop)
	p.awaitReady()
	for _, want := range []string{
		"GPUs are SIMULATED (1 x RTX PRO 6000).",
		"torch shows NVIDIA RTX PRO 6000 Blackwell Server Edition (see --hardware). For this GPU the spaces package requests 1.5 times the seconds",
		`tier "free": 300 s of GPU time a day and 8 runs (quota preset 2026-10; see --tier, --quota).`,
	} {
		eventually(t, "the screen shows "+want, patience, func() bool { return strings.Contains(p.text(), want) })
	}
	p.client().ok("/ten")
	if ended := p.awaitEnded(1); ended[0].DeclaredSeconds != 15 {
		t.Errorf("a function of 10 s declared %g s, want 15", ended[0].DeclaredSeconds)
	}
}
