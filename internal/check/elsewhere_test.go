package check

import (
	"slices"
	"strings"
	"testing"
)

// elsewhere are healthy apps whose decorators, modules, durations or launch are not written in plain sight.
var elsewhere = map[string]map[string]string{
	"containers of models and handlers": {"app.py": `
import spaces
import gradio as gr
import torch
MODELS = {"a": torch.nn.Linear(1, 1).to("cuda"), "b": torch.nn.Linear(1, 1).to("cuda")}
MIXED = {"gpu": torch.nn.Linear(1, 1).to("cuda"), "cpu": torch.nn.Linear(1, 1)}
BACK = {"a": torch.nn.Linear(1, 1).to("cuda")}
for net in BACK.values():
    net.cpu()
LAZY = {}
@spaces.GPU
def run(x, name):
    if name not in LAZY:
        LAZY[name] = torch.nn.Linear(1, 1).to("cuda")
    return LAZY[name](MODELS[name](torch.ones(1, 1, device="cuda"))).item()
def on_gpu(x):
    return torch.ones(1).cuda().item()
HANDLERS = {"a": spaces.GPU(on_gpu), "b": lambda x: run(x, "a")}
def preview(x):
    net = MIXED[x]
    return net(torch.ones(1, 1)).item(), BACK["a"](torch.ones(1, 1)).item(), len(LAZY), MODELS[x] is None
def late(x):
    return LAZY[x](torch.ones(1, 1)) if x in LAZY else None
with gr.Blocks() as demo:
    t = gr.Textbox()
    t.submit(run, [t, t], t)
    t.change(HANDLERS["a"], t, t)
    t.blur(preview, t, t)
    t.focus(late, t, t)
    for name, handler in HANDLERS.items():
        gr.Button(name).click(handler, t, t)
demo.launch()
`},
	"a loop over a container of its own name": {"app.py": `
import spaces
import gradio as gr
import torch
from store import *
for models in models.values():
    models.to("cpu")
@spaces.GPU
def run(x):
    return torch.ones(1).cuda().item()
gr.Interface(run, "text", "number").launch()
`, "store.py": "import torch\nmodels = {'a': torch.nn.Linear(1, 1)}\n"},
	"all names of spaces": {"app.py": `
from spaces import *
import gradio as gr
import torch
@GPU
def run(x):
    return torch.ones(1).cuda().item()
gr.Interface(run, "text", "number").launch()
`},
	"partial as duration": {"app.py": `
import functools
import spaces
import gradio as gr
def seconds(x, base, factor=1):
    return base * factor
@spaces.GPU(duration=functools.partial(seconds, base=30))
def run(x):
    return x
gr.Interface(run, "text", "text").launch()
`},
	"module in a downloaded archive": {"app.py": `
import zipfile
import spaces
import gradio as gr
from urllib.request import urlretrieve
urlretrieve("https://example.com/code.zip", "code.zip")
import pkg.downloaded
@spaces.GPU
def run(x):
    return x
gr.Interface(run, "text", "text").launch()
`, "pkg/__init__.py": ""},
	"launch in another program": {"app.py": `
import os, sys
import spaces
import gradio as gr
@spaces.GPU
def run(x):
    return x
demo = gr.Interface(run, "text", "text")
os.execvp(sys.executable, [sys.executable, "-m", "start"])
`},
	"flag of the hardware": {"app.py": `
import json
import spaces
import gradio as gr
import torch
config = json.load(open("config.json"))
def core(x):
    return torch.ones(1).cuda().item()
@spaces.GPU
def on_gpu(x):
    return core(x)
def run(x):
    if config["zero"]:
        return on_gpu(x)
    return core(x)
gr.Interface(run, "text", "number").launch()
`},
	"decorator of a library": {"app.py": `
import spaces
import gradio as gr
import torch
from zerotools import on_gpu
@on_gpu(60)
def run(x):
    return torch.ones(1).cuda().item()
@spaces.GPU
def other(x):
    return x
gr.Interface(run, "text", "number").launch()
`},
	"decorator of a class": {"app.py": `
import spaces
import gradio as gr
import torch
from wrap import gpu_methods
@gpu_methods
class Model:
    def run(self, x):
        return torch.ones(1).cuda().item()
@spaces.GPU
def other(x):
    return x
gr.Interface(Model().run, "text", "number").launch()
`, "wrap.py": `
import spaces
def gpu_methods(cls):
    for name in ("run",):
        setattr(cls, name, spaces.GPU(getattr(cls, name)))
    return cls
`},
	"wrapped in globals": {"app.py": `
import spaces
import gradio as gr
import torch
def run(x):
    return torch.ones(1).cuda().item()
@spaces.GPU
def other(x):
    return x
for name in ["run"]:
    globals()[name] = spaces.GPU(globals()[name])
gr.Interface(run, "text", "number").launch()
`},
}

// TestDoubtfulFindings requires warnings in place of errors where code of a library may change what happens.
func TestDoubtfulFindings(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom library import run\n" + interfaceOf}))
	if got := places(t, out.Facts, Error); len(got) > 0 {
		t.Errorf("errors %q, although the library may decorate its function", got)
	}
}

// TestKernels reports a kernel that a model is loaded with, and no name of one in a table or a comparison.
func TestKernels(t *testing.T) {
	out := read(t, writeFiles(t, map[string]string{"app.py": `import spaces
import gradio as gr
from transformers import AutoModel
CLASSES = {"eager": 1, "flash_attention_2": 2}
OPTIONS = {"attn_implementation": "flash_attention_2"}
model = AutoModel.from_pretrained("a/b", attn_implementation="flash_attention_3")
if model.config._attn_implementation == "flash_attention_2" or CLASSES["flash_attention_2"] in ("flash_attention_2",):
    print(OPTIONS)
@spaces.GPU
def run(x):
    return x
` + interfaceOf}))
	got := slices.DeleteFunc(places(t, out.Facts, Info), func(place string) bool { return !strings.HasPrefix(place, "B313") })
	if want := []string{"B313 app.py:5", "B313 app.py:6"}; !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
}
