package check

import (
	"maps"
	"testing"
)

// healthy are apps that run on ZeroGPU. Some resemble faults; others use patterns that the rules must understand.
var healthy = map[string]map[string]string{
	"alias of the module": {"app.py": `
import spaces as s
import gradio as g
import torch
model = torch.nn.Linear(1, 1).to("cuda")
@s.GPU
def run(x):
    return model(torch.ones(1, 1, device="cuda")).item()
g.Interface(run, "number", "number").launch()
`},
	"decorator by name": {"app.py": `
from spaces import GPU
from gradio import Blocks, Button, Textbox
import torch
@GPU(duration=30)
def run(x):
    return torch.ones(1).cuda().item()
with Blocks() as demo:
    t = Textbox()
    Button("Go").click(run, t, t)
demo.queue().launch()
`},
	"own decorator": {"app.py": `
import gradio as gr
import torch
from gpu import gpu
model = torch.nn.Linear(1, 1).to("cuda")
@gpu
def run(x):
    return model(torch.ones(1, 1).to("cuda")).item()
gr.Interface(run, "number", "number").launch()
`, "gpu.py": `
import os
USING_SPACES = bool(os.getenv("SPACE_ID"))
if USING_SPACES:
    import spaces
def gpu(function):
    if USING_SPACES:
        return spaces.GPU(function)
    return function
`},
	"own decorator with arguments": {"app.py": `
import gradio as gr
import functools, torch
import spaces
def gpu(seconds=60):
    def decorate(function):
        @spaces.GPU(duration=seconds)
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return function(*args, **kwargs)
        return inner
    return decorate
@gpu(seconds=90)
def run(x):
    return torch.ones(1, device="cuda").item()
gr.Interface(run, "number", "number").launch()
`},
	"fallback without spaces": {"app.py": `
try:
    import spaces
    HAS_SPACES = True
except ImportError:
    HAS_SPACES = False
    class spaces:
        @staticmethod
        def GPU(*args, **kwargs):
            return lambda f: f
import gradio as gr
import torch
device = "cuda" if HAS_SPACES or torch.cuda.is_available() else "cpu"
model = torch.nn.Linear(1, 1).to(device)
@spaces.GPU()
def run(x):
    return model(torch.ones(1, 1, device=device)).item()
gr.Interface(run, "number", "number").launch()
`},
	"event parameters": {"app.py": `
import gradio as gr
import spaces
@spaces.GPU
def run(x, request: gr.Request, progress=gr.Progress(track_tqdm=True)):
    return x
def pick(event: gr.SelectData):
    return run(event.index, None)
with gr.Blocks() as demo:
    r = gr.Radio(["a", "b"]); t = gr.Textbox()
    t.submit(run, t, t)
    r.select(pick, None, t)
demo.launch()
`},
	"server with an API": {"app.py": `
import gradio as gr
import spaces, torch
app = gr.Server()
@app.api(name="generate")
@spaces.GPU(duration=20)
def generate(prompt: str) -> str:
    return str(torch.ones(1, device="cuda").item())
@app.get("/")
def home():
    return "hello"
app.launch()
`},
	"decorated inner helper": {"app.py": `
import spaces
import gradio as gr
import torch
model = torch.nn.Linear(1, 1).cuda()
@spaces.GPU
def infer(x):
    return model(x.to("cuda")).cpu()
def handler(text):
    x = torch.ones(1, 1)
    return infer(x).item()
gr.Interface(handler, "text", "number").launch()
`},
	"torch before spaces": {"app.py": `
import torch
import gradio as gr
import spaces
torch.manual_seed(0)
torch.backends.cuda.matmul.allow_tf32 = True
model = torch.nn.Linear(1, 1).to(0)
@spaces.GPU
def run(x):
    return model(torch.ones(1, 1, device=0)).item()
gr.Interface(run, "number", "number").launch()
`},
	"GPU method": {"app.py": `
import spaces
import gradio as gr
import torch
class Model:
    def __init__(self):
        self.net = torch.nn.Linear(1, 1).to("cuda")
    @staticmethod
    @spaces.GPU
    def run(x):
        return torch.ones(1, device="cuda").item()
    def handle(self, x):
        return self.run(x)
m = Model()
gr.Interface(m.handle, "number", "number").launch()
`},
	"generator": {"app.py": `
import spaces
import gradio as gr
import torch
@spaces.GPU(duration=120)
def chat(message, history):
    for i in range(3):
        yield str(torch.ones(1, device="cuda").item() * i)
gr.ChatInterface(chat).launch()
`},
	"lambda handlers": {"app.py": `
import spaces
import gradio as gr
import torch
@spaces.GPU
def run(x, n):
    return torch.ones(n, device="cuda").sum().item()
with gr.Blocks() as demo:
    a = gr.Number(); b = gr.Number()
    gr.Button("One").click(lambda x: run(x, 1), a, b, api_name="one")
    gr.Button("Two").click(fn=lambda x: run(x, n=2), inputs=a, outputs=b, api_name="two")
demo.launch()
`},
	"several files": {"app.py": `
import spaces
from ui.blocks import build
if __name__ == "__main__":
    build().launch()
`, "ui/__init__.py": "", "ui/blocks.py": `
import gradio as gr
from .handlers import run
from models import loader
def build():
    with gr.Blocks() as demo:
        t = gr.Textbox()
        t.submit(run, [t], [t])
    return demo
`, "ui/handlers.py": `
import spaces
from models.loader import model, DEVICE
@spaces.GPU
def run(text):
    return str(model(text).to(DEVICE))
`, "models/__init__.py": "from . import loader\n", "models/loader.py": `
import torch
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = torch.nn.Linear(1, 1).to(DEVICE)
`},
	"guards": {"app.py": `
import spaces
import gradio as gr
import torch
model = torch.nn.Linear(1, 1)
if torch.cuda.is_available():
    model = model.to("cuda")
if not torch.cuda.is_available():
    torch.cuda.set_device(0)
@spaces.GPU
def run(x):
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return 1
def info():
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
gr.Interface(run, "number", "number").launch()
`},
	"async handler": {"app.py": `
import asyncio
import spaces
import gradio as gr
import torch
@spaces.GPU
def run(x):
    return torch.ones(1, device="cuda").item()
async def handler(x):
    return await asyncio.to_thread(run, x)
gr.Interface(handler, "number", "number").launch()
`},
	"state and partial": {"app.py": `
import functools
import spaces
import gradio as gr
import torch
@spaces.GPU
def run(kind, text, state):
    return text + kind, (state or 0) + torch.ones(1, device="cuda").item()
with gr.Blocks() as demo:
    s = gr.State(0); t = gr.Textbox()
    gr.Button("A").click(functools.partial(run, "a"), [t, s], [t, s], api_name="a")
demo.launch()
`},
	"decorated by a call": {"app.py": `
import spaces
import gradio as gr
import torch
def run(x):
    return torch.ones(1, device="cuda").item()
run_gpu = spaces.GPU(run, duration=45)
gr.Interface(fn=run_gpu, inputs="number", outputs="number").launch()
`},
	"duration function": {"app.py": `
import spaces
import gradio as gr
def seconds(prompt, steps, *args, **kwargs):
    return max(10, min(int(steps) * 2, 100))
@spaces.GPU(duration=seconds)
def run(prompt, steps=10, seed=0, progress=gr.Progress()):
    return prompt
with gr.Blocks() as demo:
    p = gr.Textbox(); s = gr.Slider(1, 50, 20)
    p.submit(run, [p, s], p)
    gr.Examples([["a"]], [p], p, run, cache_examples=True)
demo.launch()
`},
	"defaults are passed by Gradio": {"app.py": `
import spaces
import gradio as gr
def seconds(prompt, steps, seed, progress):
    return steps
@spaces.GPU(duration=seconds)
def run(prompt, steps=10, seed=0, progress=gr.Progress()):
    return prompt
gr.Interface(run, "text", "text").launch()
`},
	"timedelta and sizes": {"app.py": `
from datetime import timedelta
import spaces
import gradio as gr
@spaces.GPU(duration=timedelta(minutes=1, seconds=30), size="large")
def run(x):
    return x
@spaces.GPU("xlarge")
def big(x):
    return x
@spaces.GPU(45)
def small(x):
    return x
gr.TabbedInterface([gr.Interface(f, "text", "text") for f in (run, big, small)]).launch()
`},
	"threads in a GPU function": {"app.py": `
import spaces
import gradio as gr
from threading import Thread
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer
tokenizer = AutoTokenizer.from_pretrained("a/b")
model = AutoModelForCausalLM.from_pretrained("a/b").to("cuda")
@spaces.GPU
def chat(message, history):
    inputs = tokenizer(message, return_tensors="pt").to(model.device)
    streamer = TextIteratorStreamer(tokenizer)
    Thread(target=model.generate, kwargs=dict(inputs, streamer=streamer)).start()
    text = ""
    for token in streamer:
        text += token
        yield text
gr.ChatInterface(chat).launch()
`},
	"settings of a model in a handler": {"app.py": `
import spaces
import gradio as gr
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("a/b").to("cuda")
def choose(name):
    pipe.load_lora_weights(name)
    pipe.set_adapters([name])
    return pipe.config, pipe.device
@spaces.GPU
def run(prompt):
    return pipe(prompt).images[0]
with gr.Blocks() as demo:
    t = gr.Textbox(); i = gr.Image()
    t.change(choose, t, None)
    t.submit(run, t, i)
demo.launch()
`},
	"objects with a method to": {"app.py": `
import spaces
import gradio as gr
class Units:
    def to(self, unit):
        return unit
units = Units()
@spaces.GPU
def run(x):
    return x
def convert(x):
    return units.to("cuda")
with gr.Blocks() as demo:
    t = gr.Textbox()
    t.submit(convert, t, t)
    t.change(run, t, t)
demo.launch()
`},
	"optional modules": {"app.py": `
import spaces
import gradio as gr
try:
    from extras import special
except ImportError:
    special = None
from settings import *
from settings import NAME
from pkg import part, _version, LAZY
@spaces.GPU
def run(x):
    return NAME
gr.Interface(run, "text", "text").launch()
`, "extras.py": "import os\n", "settings.py": "NAME = 'a'\n", "pkg/__init__.py": "def __getattr__(name):\n    return name\n", "pkg/part.py": ""},
	"sys.path": {"app.py": `
import os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "src"))
import spaces
from tools import run
import gradio as gr
gr.Interface(run, "text", "text").launch()
`, "src/tools.py": "import spaces\n@spaces.GPU\ndef run(x):\n    return x\n"},
	"names of libraries": {"app.py": `
import types
from types import SimpleNamespace
import spaces
import gradio as gr
from queue import Queue
@spaces.GPU
def run(x):
    return x
gr.Interface(run, "text", "text").launch()
`, "types.py": "A = 1\n", "queue.py": "B = 2\n"},
	"served after a report of its own": {"app.py": `
import gradio as gr
import spaces
import uvicorn
from fastapi import FastAPI
from spaces import zero
@spaces.GPU
def run(x):
    return x
app = gr.mount_gradio_app(FastAPI(), gr.Interface(run, "text", "text"), path="/")
zero.startup()
uvicorn.run(app, host="0.0.0.0", port=7860)
`},
	"server after launch": {"app.py": `
import time
import spaces
import gradio as gr
@spaces.GPU
def run(x):
    return x
demo = gr.Interface(run, "text", "text")
demo.launch(prevent_thread_lock=True, server_name="0.0.0.0", server_port=7860)
while True:
    time.sleep(60)
`},
	"variables with defaults": {"app.py": `
import os
import spaces
import gradio as gr
token = os.environ.get("HF_TOKEN")
os.environ["HF_HUB_ENABLE_HF_TRANSFER"] = "1"
name = os.environ["NAME"] if "NAME" in os.environ else "none"
print(os.environ["HF_HUB_ENABLE_HF_TRANSFER"], "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
@spaces.GPU
def run(x):
    return x
gr.Interface(run, "text", "text").launch()
`},
	"picklable arguments": {"app.py": `
import spaces
import gradio as gr
def upper(s):
    return s.upper()
@spaces.GPU
def run(x, callback, items):
    return callback(x)
@spaces.GPU
def outer(x):
    return run(x, lambda s: s, [])
def handler(x):
    names = sorted([x], key=lambda s: s)
    return run(x, upper, [n for n in names])
with gr.Blocks() as demo:
    t = gr.Textbox()
    t.submit(handler, t, t)
    t.change(outer, t, t)
demo.launch()
`},
	"device as an argument": {"app.py": `
import spaces
import gradio as gr
import torch
model = torch.nn.Linear(1, 1)
model.to("cuda")
def prepare(x, device="cpu"):
    return torch.ones(1, 1, device=device)
@spaces.GPU
def run(x):
    return model(prepare(x, "cuda")).item()
def preview(x):
    return prepare(x).item()
with gr.Blocks() as demo:
    n = gr.Number()
    n.submit(run, n, n)
    n.change(preview, n, n)
demo.launch()
`},
}

func TestHealthySpaces(t *testing.T) {
	if len(healthy) < 20 {
		t.Fatalf("%d healthy Spaces", len(healthy))
	}
	apps := maps.Clone(healthy)
	maps.Copy(apps, elsewhere)
	for name, files := range apps {
		t.Run(name, func(t *testing.T) {
			out := read(t, writeFiles(t, files))
			if got := places(t, out.Facts, Error); len(got) > 0 {
				t.Errorf("errors %q in a healthy Space", got)
			}
			if out.Inventory == nil || len(out.Inventory.GPUFunctions) == 0 {
				t.Error("no GPU function is found")
			}
		})
	}
}
