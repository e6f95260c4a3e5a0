package check

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestUnusualFiles reads files that no parser likes. Each becomes a finding or a sentence.
func TestUnusualFiles(t *testing.T) {
	const app = "import spaces\nimport gradio as gr\ntry:\n    import odd\nexcept Exception:\n    odd = None\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf
	for name, row := range map[string]struct{ odd, said string }{
		"Python 2":       {"print 'a'\n", "odd.py:1: not checked"},
		"null byte":      {"a = 1\x00\n", "odd.py"},
		"not UTF-8":      {"# \xff\xfe\na = '\xe9'\n", "odd.py:1: not checked"},
		"Latin-1":        {"# -*- coding: latin-1 -*-\na = '\xe9'\n", ""},
		"unknown coding": {"# -*- coding: klingon -*-\n", "odd.py:1: not checked"},
		"mark and CRLF":  {"\xef\xbb\xbfimport os\r\na = os.name\r\n", ""},
		"empty":          {"", ""},
		"deep":           {"a = " + strings.Repeat("(", 5000) + strings.Repeat(")", 5000) + "\n", "odd.py"},
		"deep sum":       {"a = " + strings.Repeat("1 + ", 20000) + "1\n", "odd.py"},
		"nested blocks":  {nested(90), ""},
		"huge":           {"a = 1\n" + strings.Repeat("# comment\n", 300_000), "odd.py: not checked, because the file is larger than 2 MiB"},
		"long loop":      {"def seconds(x):\n    while True:\n        x += 1\n    return x\n", ""},
		"many meanings":  {"def view(x):\n    return x\nx = y = view(1)\n" + strings.Repeat("x = view(x).to(y)\ny = x.view(y)\n", 20) + "y.run(x)\n", ""},
		"own import":     {"import odd\nfrom odd import *\nfrom odd import a\na = a\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out := read(t, writeFiles(t, map[string]string{"app.py": app, "odd.py": row.odd}))
			if got := places(t, out.Facts, Error); len(got) > 0 {
				t.Errorf("errors %q", got)
			}
			if said := strings.Join(out.NotLookedAt, "\n"); !strings.Contains(said, row.said) || row.said == "" && said != "" {
				t.Errorf("not looked at %q, want %q", said, row.said)
			}
			if len(out.LookedAt) == 0 || out.Inventory == nil || len(out.Inventory.GPUFunctions) != 1 {
				t.Errorf("looked at %q, inventory %+v", out.LookedAt, out.Inventory)
			}
		})
	}
}

func nested(depth int) string {
	var text strings.Builder
	for i := range depth {
		fmt.Fprintf(&text, "%sif x:\n", strings.Repeat(" ", i))
	}
	return "x = 1\n" + text.String() + strings.Repeat(" ", depth) + "pass\n"
}

// TestLinksDoNotLeaveTheSpace reads a Space with a loop of links and a link to a file elsewhere.
func TestLinksDoNotLeaveTheSpace(t *testing.T) {
	secret := writeFiles(t, map[string]string{"helpers.py": "def load():\n    return 1\n"})
	dir := writeFiles(t, map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport loop.loop.app\nimport helpers\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf})
	for link, target := range map[string]string{"loop": ".", "helpers.py": filepath.Join(secret, "helpers.py")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	out := read(t, dir)
	if text := fmt.Sprint(out.LookedAt); strings.Contains(text, "helpers") {
		t.Errorf("looked at %s", text)
	}
}

func TestDynamicCodeIsNamed(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"a.ipynb": "{}", "app.py": "import importlib, sys, os\nimport spaces\nimport gradio as gr\nsys.path.append(os.environ['X'])\nm = importlib.import_module(sys.argv[1])\nexec(open('b.py').read())\n" + interfaceOf}))
	said := strings.Join(out.NotLookedAt, "\n")
	for _, want := range []string{"app.py:4: code that the line loads is not followed, because it adds a folder to sys.path", "app.py:5: code that it loads", "app.py:6: code that it loads", "a.ipynb"} {
		if !strings.Contains(said, want) {
			t.Errorf("not looked at %q, want %q", said, want)
		}
	}
	if got := places(t, out.Facts, Error); len(got) > 0 {
		t.Errorf("errors %q, although not all code was read", got)
	}
}

func TestIgnoreComments(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"app.py": `import spaces
import gradio as gr
@spaces.GPU(
    duration="60",  # spacehost: ignore[H402, g313]
)
def run(x):
    return x
# spacehost: ignore[A604]
gr.Interface(run, "text", "text").launch(
    server_port=80)
text = "# spacehost: ignore[F308]"
print(1)  # spacehost: ignore
print(2)  # spacehost: ignore[]
print(3)  # spacehost: ignore[A604
print(4)  # spacehost: ignored [A604]
`}))
	want := []Ignore{{File: "app.py", Line: 4, IDs: []string{"H402", "G313"}}, {File: "app.py", Line: 9, At: 8, IDs: []string{"A604"}}}
	if fmt.Sprint(out.Ignores) != fmt.Sprint(want) {
		t.Errorf("comments %v, want %v; facts %v", out.Ignores, want, out.Facts)
	}
}

// TestNumbersThatJSONLacks reads Infinity, NaN and an integer above float64's range as bounds, as examples and as durations.
func TestNumbersThatJSONLacks(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"app.py": `import math
import spaces
import gradio as gr
@spaces.GPU(duration=float("inf"))
def run(x):
    return x
@spaces.GPU(duration=lambda x: 1e400)
def other(x):
    return x
gr.Interface(other, gr.Slider(0, 1e400), "number")
gr.Interface(run, gr.Number(minimum=float("-inf"), maximum=math.inf, value=10**400), "number", examples=[[float("nan")], [1]]).launch()
`}))
	if got, want := places(t, out.Facts, Error), []string{"H402 app.py:4"}; !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
	if out.Inventory == nil || len(out.Inventory.Endpoints) != 2 || fmt.Sprint(out.Inventory.Endpoints[1].Examples) != "[[<nil>] [1]]" {
		t.Errorf("inventory %+v", out.Inventory)
	}
}

// TestFIFOsAreNotOpened reads a Space with FIFOs, for which an open waits for a writer.
func TestFIFOsAreNotOpened(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport helper\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf})
	for _, name := range []string{"notes.txt", "helper.py", ".env", "index.html"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := read(t, dir); out.Inventory == nil || len(out.Inventory.GPUFunctions) != 1 {
		t.Errorf("inventory %+v", out.Inventory)
	}
}

func TestInventory(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"app.py": `import os
import numpy as np
import spaces
import gradio as gr
from sub.part import helper
STEPS = 25
KEY = os.environ["KEY"]
def seconds(image, prompt, steps, mode, progress):
    factor = {"fast": 1, "slow": 2}[mode] * (2 if image.size[0] == image.size[1] else 1)
    return max(10, min(int(np.clip(steps, 0, 90)) * factor, 300))
@spaces.GPU(duration=seconds, size="xlarge")
def run(image, prompt, steps, mode, progress=gr.Progress()):
    return prompt
@spaces.GPU
def stream(text):
    yield text
def handler(image, prompt, steps, mode):
    return run(image, prompt, steps, mode, None)
with gr.Blocks() as demo:
    with gr.Row():
        image = gr.Image(type="pil"); prompt = gr.Textbox("a cat", label="Prompt")
        steps = gr.Slider(minimum=1, maximum=100, value=STEPS, step=1)
        mode = gr.Radio(choices=[("Fast", "fast"), ("Slow", "slow")], value="fast")
    go = gr.Button("Go")
    go.click(fn=handler, inputs=[image, prompt, steps, mode], outputs=prompt, api_name="make")
    prompt.submit(stream, prompt, prompt)
    prompt.change(stream, prompt, prompt)
    go.click(lambda: os.getenv("OPTIONAL"), None, prompt, api_name=False)
    gr.Examples(examples=[["a.png", "x", 2, "slow"]], inputs=[image, prompt, steps, mode], fn=handler)
demo.launch()
`, "sub/part.py": "def helper():\n    pass\n"}))
	i := out.Inventory
	if len(i.GPUFunctions) != 2 || !i.ImportsSpaces {
		t.Fatalf("inventory %+v", i)
	}
	run, stream := i.GPUFunctions[0], i.GPUFunctions[1]
	if run.Name != "run" || run.Line != 12 || run.DecoratorLine != 11 || run.Size != "xlarge" || run.Duration != "dynamic" || run.DurationFunction != "seconds" ||
		!run.Complete || run.Longest.Seconds != 300 || run.Longest.Inputs["steps"] != "100" || run.Longest.Inputs["mode"] != "slow" || run.Shortest.Seconds != 10 {
		t.Errorf("run: %+v, longest %+v, shortest %+v", run, run.Longest, run.Shortest)
	}
	if stream.Duration != "fixed" || stream.Seconds != 60 || !stream.Generator || stream.Size != "" {
		t.Errorf("stream: %+v", stream)
	}
	var names []string
	for _, e := range i.Endpoints {
		names = append(names, fmt.Sprintf("%s %s:%d %v", e.APIName, e.Function, e.Line, e.GPU))
	}
	if want := []string{"/make handler:25 false", "/stream stream:26 true", "/stream_1 stream:27 true", " a lambda:28 false"}; !slices.Equal(names, want) {
		t.Errorf("endpoints %q, want %q", names, want)
	}
	if in := i.Endpoints[0].Inputs; len(in) != 4 || in[2]["maximum"] != 100.0 || in[2]["value"] != 25.0 || in[1]["label"] != "Prompt" || len(i.Endpoints[0].Examples) != 1 {
		t.Errorf("inputs of /make: %v, examples %v", in, i.Endpoints[0].Examples)
	}
	if len(i.Variables) != 2 || i.Variables[0] != (Variable{Name: "KEY", File: "app.py", Line: 7, Required: true, AtImport: true}) {
		t.Errorf("variables %+v", i.Variables)
	}
	var imports []string
	for _, imported := range i.Imports {
		imports = append(imports, imported.Name)
	}
	if want := []string{"gradio", "numpy", "os", "spaces"}; !slices.Equal(imports, want) {
		t.Errorf("imports %q, want %q", imports, want)
	}
}

func TestUnusableInterpreter(t *testing.T) {
	dir := writeFiles(t, map[string]string{"app.py": ""})
	if _, err := readPython(t.Context(), filepath.Join(dir, "none"), dir, "app.py"); err == nil || !strings.Contains(err.Error(), "--python") {
		t.Errorf("a missing interpreter: %v", err)
	}
	if _, err := readPython(t.Context(), "/bin/false", dir, "app.py"); err == nil || !strings.Contains(err.Error(), "Python 3.9 or later") {
		t.Errorf("an interpreter that fails: %v", err)
	}
	if err := readerError(t.Context(), "python3", &exec.ExitError{}, "Traceback\nValueError: a fault"); strings.Contains(err.Error(), "3.9") {
		t.Errorf("a fault of the reader is blamed on the interpreter: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readPython(ctx, interpreter(t), dir, "app.py"); err == nil {
		t.Error("a context that has ended is no error")
	}
	out, err := readPython(t.Context(), interpreter(t), dir, "other.py")
	if err != nil || len(out.NotLookedAt) != 1 {
		t.Errorf("a missing app file: %v, %+v", err, out)
	}
}
