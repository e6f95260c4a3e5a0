package checkrun

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/check"
	"spacehost/internal/host"
	"spacehost/quota"
)

func containsBytes(data []byte, text string) bool { return bytes.Contains(data, []byte(text)) }

// lines returns each finding as "app.py:3 error A206 run".
func lines(r check.Report) (all []string) {
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s %s %s %s", f.Place(), f.Severity, f.ID, f.Stage))
	}
	return all
}

// want compares the findings, except those of ignored rules.
func want(t *testing.T, r check.Report, wanted ...string) {
	t.Helper()
	got := lines(r)
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("findings:\n  got  %q\n  want %q\n  texts: %+v\n  not looked at: %q", got, wanted, r.Findings, r.NotLookedAt)
	}
	for _, f := range r.Findings {
		if strings.ContainsAny(f.Text+f.Fix, "{}") {
			t.Errorf("%s: a value is missing in %q or %q", f.ID, f.Text, f.Fix)
		}
	}
}

// TestObservedStarts starts Spaces that fail at their start, and one that does questionable things.
func TestObservedStarts(t *testing.T) {
	const greet = `
import gradio as gr
import spaces

@spaces.GPU
def greet(name):
    return "Hello " + name

`
	for _, row := range []struct {
		name, more, app string
		want            []string
		text            string // in the first finding
	}{
		{"missing module", "", greet + "import einops_exts\n", []string{"app.py:9 error A206 run"}, "einops_exts is imported, and no requirement brings it"},
		{"drift", "", greet + "gr.Textbox(show_copy_button=True)\n", []string{"app.py:9 error B801 run"}, "gradio 6.31.0 does not accept this call"},
		{"exception", "", greet + "1 / 0\n", []string{"app.py:9 error A801 run"}, "ZeroDivisionError: division by zero"},
		{"exit", "", greet + "raise SystemExit('needs an H200')\n", []string{". error A801 run"}, "needs an H200"},
		{"connection", "", greet + "import httpx\nhttpx.get('http://127.0.0.1:9/model')\n", []string{"app.py:10 warning A803 run"}, "ConnectError"},
		{"endless", "startup_duration_timeout: 8s\n", "import time\nwhile True:\n    time.sleep(0.2)\n", []string{"app.py:3 error A802 run"}, "still at this line after 8 s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r, err := run(t, Options{Dir: writeSpace(t, row.app, row.more)})
			if host.CauseOf(err) != host.CauseRuntime {
				t.Errorf("error %v, want one of the start", err)
			}
			want(t, r, row.want...)
			if len(r.Findings) > 0 && !strings.Contains(r.Findings[0].Text, row.text) {
				t.Errorf("text %q, want %q in it", r.Findings[0].Text, row.text)
			}
		})
	}
	t.Run("questionable", func(t *testing.T) {
		t.Parallel()
		r, err := run(t, Options{Dir: writeSpace(t, greet+`
import os
import threading

try:
    open("/var/spacehost-check.txt", "w").close()
    os.remove("/var/spacehost-check.txt")
except OSError:
    pass
open("notes.txt", "w").write("ok")
open(f"/tmp/{os.getpid()}.txt", "w").close()
os.remove(f"/tmp/{os.getpid()}.txt")
os.getenv("SOME_TOKEN")
greet("at the start")
thread = threading.Thread(target=lambda: greet("in a thread"))
thread.start()
thread.join()
gr.Interface(greet, "text", "text").launch()
`, "")})
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
		want(t, r, "app.py:14 warning B605 run", "app.py:22 warning C508 run", "app.py:23 warning C508 run")
		if not := strings.Join(r.NotLookedAt, "\n"); !strings.Contains(not, "the start with the variable SOME_TOKEN (app.py:21), which is not set") {
			t.Errorf("not looked at %q, want the missing variable", not)
		}
	})
}

func limits(t *testing.T) check.DurationLimits {
	t.Helper()
	tiers, err := quota.Presets("2026-04")
	if err != nil {
		t.Fatal(err)
	}
	return check.Options{Tiers: tiers, Tier: "free", Hardware: gpu.KnownHardware["h200"]}.Limits()
}

const faultyApp = `
import time

import gradio as gr
import spaces

history = []

def by_size(picture, steps, mode):
    width, height = picture.size
    return steps * (2 if mode == "fine" else 1) * width * height / 2**20

@spaces.GPU(duration=by_size)
def draw(picture, steps, mode):
    return f"{picture.size} {steps} {mode}"

def two(prompt, steps):
    return 10

@spaces.GPU(duration=two)
def unequal(prompt, steps, progress=gr.Progress()):
    return prompt

@spaces.GPU
def add(name):
    history.append(name)
    return len(history)

def show():
    return str(history)

@spaces.GPU(duration=10)
def broken(x):
    raise ValueError("bad value")

@spaces.GPU(duration=1)
def slow(x):
    time.sleep(30)

def handler(x):
    return {}[x]

def picky(x):
    raise gr.Error("Choose another text")

@spaces.GPU(duration=10)
def size(path):
    return len(open(path, "rb").read())

def picked(event: gr.SelectData):
    return str(event.index)

with gr.Blocks() as demo:
    picture = gr.Image(type="pil")
    steps = gr.Slider(1, 200, 20)
    mode = gr.Radio(["fast", "fine"], value="fast")
    text = gr.Textbox("given")
    empty = gr.Textbox()
    file = gr.File(type="filepath")
    gr.Button().click(draw, [picture, steps, mode], text)
    gr.Button().click(unequal, [text, steps], text)
    gr.Button().click(add, text, text)
    gr.Button().click(show, None, text)
    gr.Button().click(broken, text, text)
    gr.Button().click(slow, text, text)
    gr.Button().click(handler, empty, text)
    gr.Button().click(picky, text, text)
    gr.Button().click(size, file, text)
    gr.Button().click(lambda x: x, text, text, api_name=False)
    mode.select(picked, None, text)
demo.launch()
`

// TestObservedCalls calls the endpoints of one Space with many faults, and those of a healthy one.
func TestObservedCalls(t *testing.T) {
	for name, python := range map[string]func() (string, error){"spaces 0.51": testPython, "spaces 0.52": newerPython} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, err := python()
			if err != nil {
				t.Fatal(err)
			}
			observedFaults(t, path)
		})
	}
	t.Run("healthy", func(t *testing.T) {
		t.Parallel()
		r, err := run(t, Options{Call: true, Dir: copied(t, "../../examples/hello-zerogpu")})
		if err != nil || r.AtLeast(check.Warning) > 0 {
			t.Errorf("error %v, findings %q, want neither: %+v", err, lines(r), r.Findings)
		}
		if said := strings.Join(r.LookedAt, "\n"); !strings.Contains(said, "calls on simulated GPUs") {
			t.Errorf("looked at %q, want the calls", said)
		}
	})
}

func observedFaults(t *testing.T, python string) {
	t.Helper()
	r, err := run(t, Options{Call: true, Hardware: "h200", Limits: limits(t), Python: python, Dir: writeSpace(t, faultyApp, "")})
	if err != nil {
		t.Errorf("error %v, want none", err)
	}
	want(t, r,
		"app.py:13 warning H407 call", // 200 steps, fine, the largest picture
		"app.py:20 error H801 call",
		"app.py:24 warning B802 call", "app.py:24 info C406 call",
		"app.py:34 error G801 call",
		"app.py:36 warning G802 call",
		"app.py:41 warning S801 call", // its input is made up
	)
	texts := fmt.Sprint(r.Findings)
	for _, words := range []string{
		"returns 400 s for", "steps=200", "mode=fine", "picture=a square picture", "free (", "add declares 60 s", "ValueError: bad value",
		"show reads history",
	} {
		if !strings.Contains(texts, words) {
			t.Errorf("the findings lack %q: %s", words, texts)
		}
	}
	not := strings.Join(r.NotLookedAt, "\n")
	for _, words := range []string{"picked: it needs the data of an event", "<lambda>: it has no name", "the result of /picky, which refuses"} {
		if !strings.Contains(not, words) {
			t.Errorf("not looked at lacks %q: %s", words, not)
		}
	}
}
