package checkrun

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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
		{"connection", "", greet + "import httpx\nhttpx.get('http://127.0.0.1:9/model')\n", []string{"app.py:10 warning A803 run"},
			"a connection to 127.0.0.1 and ends with ConnectError: no program of this machine listens there"},
		{"name", "", greet + "import urllib.request\nurllib.request.urlopen('http://no-such-host.invalid/model')\n", []string{"app.py:10 warning A803 run"},
			"a connection to no-such-host.invalid and ends with URLError: this machine cannot reach it"},
		{"own message", "", greet + "import os\nif not os.getenv('SERVICE_KEY'):\n    raise ValueError('Set SERVICE_KEY')\n", []string{"app.py:11 warning B604 run"},
			"the start needs the variable SERVICE_KEY, which is not set here, and ends with ValueError: Set SERVICE_KEY"},
		{"empty value", "", greet + "import os\nMODEL = os.environ.get('MODEL_REPO')\nlen(\n    MODEL)\n", []string{"app.py:11 warning B604 run"}, "the start needs the variable MODEL_REPO"},
		{"installs itself", "", greet + "import os\nos.system('false # pip install einops-exts')\nimport einops_exts\n", []string{"app.py:11 warning A206 run"}, "neither a requirement nor app.py:10 brings it here"},
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
	t.Run("other packages", func(t *testing.T) {
		t.Parallel()
		r, _ := run(t, Options{Unmet: []string{"gradio 5.49.1", "einops-exts"}, Dir: writeSpace(t, greet+"import einops_exts\n", "")})
		want(t, r, "app.py:9 warning A206 run")
		if all := fmt.Sprint(r.Findings, r.NotLookedAt); !strings.Contains(all, "the Python of --python does not have it") || !strings.Contains(all, "packages that the Space asks for and --python does not have: gradio 5.49.1, einops-exts") {
			t.Errorf("report %q, want the Python of --python in it", all)
		}
	})
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
try:
    import socket
    socket.create_connection(("no-such-host.invalid", 80))
except OSError:
    pass
greet("at the start")
thread = threading.Thread(target=lambda: greet("in a thread"))
thread.start()
thread.join()
gr.Interface(greet, "text", "text").launch()
`, "")})
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
		want(t, r, "app.py:14 warning B605 run", "app.py:27 warning C508 run", "app.py:28 warning C508 run")
		for _, words := range []string{"the start with the variable SOME_TOKEN (app.py:21), which is not set", "app.py:24, which needs a connection to no-such-host.invalid: this machine cannot reach it"} {
			if not := strings.Join(r.NotLookedAt, "\n"); !strings.Contains(not, words) {
				t.Errorf("not looked at %q, want %q in it", not, words)
			}
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

def document(x):
    if x is not None:
        import no_such_reader
    return x

def keyed(x):
    import os
    return os.environ["NO_SUCH_KEY"]

@spaces.GPU
def remote(x):
    try:
        import urllib.request
        urllib.request.urlopen("http://no-such-host.invalid/model")
    except OSError:
        raise gr.Error("The model is not available")

def never(x):
    import no_such_writer

def guarded(x):
    try:
        import no_such_option
    except ImportError:
        return x

def by_steps(steps, unused=None):
    return steps * 2

@spaces.GPU(duration=by_steps)
def render(steps):
    return str(steps)

def compose(x, steps):
    return render(steps)

@spaces.GPU(duration=lambda amount: amount)
def hidden(amount):
    return str(amount)

def use_hidden(x):
    return hidden(10)

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
    gr.Button().click(document, text, text)
    gr.Button().click(keyed, text, text)
    gr.Button().click(remote, text, text)
    gr.Button().click(compose, [text, steps], text)
    gr.Button().click(use_hidden, text, text)
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

// TestCallThatHangs leaves a call that does not end, and makes the others.
func TestCallThatHangs(t *testing.T) {
	t.Parallel()
	r, err := run(t, Options{Call: true, CallTimeout: 4 * time.Second, Dir: writeSpace(t, `
import time
import gradio as gr
import spaces

@spaces.GPU
def hang(x):
    time.sleep(600)

@spaces.GPU
def answer(x):
    return x

with gr.Blocks() as demo:
    text = gr.Textbox("given")
    gr.Button().click(hang, text, text)
    gr.Button().click(answer, text, text)
demo.launch()
`, "")})
	if err != nil {
		t.Errorf("error %v, want none", err)
	}
	want(t, r, "app.py:10 info C406 call")
	if not := []string{"/hang, which did not end within 4s (--call-timeout)"}; !slices.Equal(r.NotLookedAt, not) {
		t.Errorf("not looked at %q, want %q", r.NotLookedAt, not)
	}
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
		"app.py:52 error A206 call",
		"app.py:57 warning B604 call",
		"app.py:68 warning A206 run",                           // nothing calls it
		"app.py:79 info H407 call", "app.py:79 info C406 call", // of a helper
	)
	texts := fmt.Sprint(r.Findings)
	for _, words := range []string{
		"returns 400 s for", "steps=200", "mode=fine", "picture=a square picture", "free (", "add declares 60 s", "ValueError: bad value", "document fails with ModuleNotFoundError", "never fails with ModuleNotFoundError",
		"show reads history", "render returns 400 s for steps=200, if compose passes its inputs on unchanged",
	} {
		if !strings.Contains(texts, words) {
			t.Errorf("the findings lack %q: %s", words, texts)
		}
	}
	not := strings.Join(r.NotLookedAt, "\n")
	for _, words := range []string{"picked: it needs the data of an event", "<lambda>: it has no name", "the result of keyed (app.py:57), which needs the variable NO_SUCH_KEY",
		"app.py:63, which needs a connection to no-such-host.invalid: this machine cannot reach it", "the result of /picky, which ends with an error that the app itself shows: Error: Choose another text"} {
		if !strings.Contains(not, words) {
			t.Errorf("not looked at lacks %q: %s", words, not)
		}
	}
}
