package check

import "testing"

// elsewhere are healthy apps whose decorators, modules, durations or launch are not written in plain sight.
var elsewhere = map[string]map[string]string{
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
