package check

import (
	"slices"
	"testing"
)

const interfaceOf = "gr.Interface(run, \"text\", \"text\").launch()\n"

// broken are variants of the faults, in other spellings and places. want are the findings that are no notes.
var broken = []struct {
	name  string
	files map[string]string
	want  []string
}{
	{"A305 in a module", map[string]string{"app.py": "import start\nimport gradio as gr\ndef run(x):\n    return x\n" + interfaceOf, "start.py": "from spaces import aoti_compile\n"}, []string{"A305 start.py:1"}},
	{"A311 with a server object", map[string]string{"app.py": `import spaces, uvicorn
import gradio as gr
from fastapi import FastAPI
@spaces.GPU
def run(x):
    return x
app = gr.routes.mount_gradio_app(FastAPI(), gr.Interface(run, "text", "text"), path="/ui")
def main():
    uvicorn.Server(uvicorn.Config(app, port=7860)).run()
if __name__ == "__main__":
    main()
`}, []string{"A311 app.py:9"}},
	{"A604 by name and port", map[string]string{"app.py": "import spaces\nimport gradio as gr\nPORT = 8000 + 80\n@spaces.GPU\ndef run(x):\n    return x\ndemo = gr.Interface(run, \"text\", \"text\")\ndemo.launch(server_name=\"localhost\",\n            server_port=PORT)\n"}, []string{"A604 app.py:8", "A604 app.py:8"}},
	{"A606 in a function that nothing calls", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    return x\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(run, t, t)\ndemo.queue()\n"}, []string{"A606 app.py:6"}},
	{"A606 for a chat", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x, history):\n    return x\nchat = gr.ChatInterface(\n    run)\n"}, []string{"A606 app.py:6"}},
	{"B601 in a module and a call", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom os import environ\nimport keys\n@spaces.GPU\ndef run(x):\n    return environ[\"API_URL\"]\n" + interfaceOf, "keys.py": "import os\nKEY = os.environ['OPENAI_API_KEY']\n"}, []string{"B601 app.py:7", "B601 keys.py:2"}},
	{"A305 with a handler of a library", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom library import run\n" + interfaceOf}, []string{"A305 app.py:1"}},
	{"C316 with and without a cache", map[string]string{"app.py": "import functools\nimport spaces\nimport gradio as gr\nfrom transformers import pipeline\n@functools.lru_cache\ndef first():\n    return pipeline('a')\nclass Models:\n    @functools.cached_property\n    def second(self):\n        return pipeline('b')\ndef third():\n    return pipeline('c')\nmodels = Models()\nfirst(), models.second, third()\n@spaces.GPU\ndef run(x):\n    return first()(x), models.second(x), third()(x)\n" + interfaceOf}, []string{"C316 app.py:13"}},
	{"F308 after a test of the input", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@spaces.GPU\ndef other(x):\n    return x\ndef run(x):\n    if not x:\n        raise gr.Error('no text')\n    return torch.ones(1).cuda().item()\n" + interfaceOf}, []string{"F308 app.py:10"}},
	{"F308 of a table of handlers", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@spaces.GPU\ndef good(x):\n    return x\ndef bad(x):\n    return torch.ones(1).cuda().item()\nTABS = [('Good', good), ('Bad', bad)]\nwith gr.Blocks() as demo:\n    for name, fn in TABS:\n        t = gr.Textbox()\n        gr.Button(name).click(fn, t, t)\ndemo.launch()\n"}, []string{"F308 app.py:8"}},
	{"G315 for the calls of handlers", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@spaces.GPU\ndef inner(x):\n    return torch.ones(1).cuda()\n@spaces.GPU\ndef outer(x):\n    return torch.ones(1).cuda()\n@spaces.GPU\ndef both(x):\n    return inner(x).item()\ndef run(x):\n    return both(x), outer(x).item()\n" + interfaceOf}, []string{"G315 app.py:9"}},
	{"B601 raised again, and handled", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport os\ntry:\n    KEY = os.environ['KEY']\nexcept KeyError:\n    raise ValueError('set KEY')\ntry:\n    URL = os.environ['URL']\nexcept (KeyError, TypeError):\n    URL = ''\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf}, []string{"B601 app.py:5"}},
	{"C316 in a helper", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom transformers import AutoModel, AutoTokenizer\ndef load(name):\n    AutoTokenizer.from_pretrained(name)\n    return AutoModel.from_pretrained(name)\n@spaces.GPU\ndef run(x):\n    return str(load('a/b'))\n" + interfaceOf}, []string{"C316 app.py:6"}},
	{"C319 of gr.Examples", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    return x\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    gr.Examples(examples=[['a']], inputs=t, outputs=t, fn=run,\n                cache_examples=True, cache_mode='eager')\ndemo.launch()\n"}, []string{"C319 app.py:9"}},
	{"C504 at import and in a thread", map[string]string{"app.py": "import threading\nimport spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    return x\nrun('warm up')\ndef refresh():\n    run('again')\nthreading.Thread(target=refresh, daemon=True).start()\n" + interfaceOf}, []string{"C504 app.py:7", "C504 app.py:9"}},
	{"C506 in a file", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "static/index.html": "<script>\nconst s = new EventSource(`/gradio_api/queue/data?session_hash=${h}`)\n</script>\n"}, []string{"C506 static/index.html:2"}},
	{"C507 in a call", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport gradio_client as gc\n@spaces.GPU\ndef run(x):\n    return x\ndef ask(x):\n    return gc.Client('owner/space').predict(x)\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(ask, t, t)\n    t.change(run, t, t)\ndemo.launch()\n"}, []string{"C507 app.py:8"}},
	{"E301 in a module", map[string]string{"app.py": "import gradio as gr\nfrom tools import device\nimport spaces\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "tools/__init__.py": "from .gpu import pick\ndevice = pick()\n", "tools/gpu.py": "import torch\ndef pick():\n    if torch.cuda.is_available():\n        return 'cuda'\n    return 'cpu'\n"}, []string{"E301 tools/gpu.py:3"}},
	{"E301 by other names", map[string]string{"app.py": "import torch as t\nimport gradio as gr\nfrom torch import cuda\nCAPABILITY = cuda.get_device_capability()\nimport spaces\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf}, []string{"E301 app.py:4"}},
	{"E301 before a conditional import", map[string]string{"app.py": "import os\nimport torch\nimport gradio as gr\nfast = torch.cuda.is_bf16_supported()\nif 'SPACE_ID' in os.environ and os.getenv('SPACES_ZERO_GPU') == 'true':\n    import spaces\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf}, []string{"E301 app.py:4"}},
	{"E301 in a class", map[string]string{"app.py": "import torch\nimport gradio as gr\nclass Config:\n    device = torch.device('cuda')\n    noise = torch.randn(4, device=device)\nfrom spaces import GPU\n@GPU\ndef run(x):\n    return x\n" + interfaceOf}, []string{"E301 app.py:5"}},
	{"E304 in a handler", map[string]string{"app.py": "import torch\nimport gradio as gr\ndef run(x):\n    return torch.zeros(3).cuda().sum().item()\n" + interfaceOf}, []string{"E304 app.py:4", "F308 app.py:4"}},
	{"E306 as a file", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "spaces.py": "def GPU(f):\n    return f\n"}, []string{"E306 spaces.py:1"}},
	{"F308 through helpers and threads", map[string]string{"app.py": "import asyncio\nimport spaces\nimport gradio as gr\nfrom work import prepare\n@spaces.GPU\ndef run(x):\n    return x\nasync def handler(x):\n    return await asyncio.to_thread(prepare, x)\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    gr.on([t.submit], fn=handler, inputs=t, outputs=t)\n    t.change(run, t, t)\ndemo.launch()\n", "work.py": "import torch\nDEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'\ndef prepare(x):\n    y = torch.zeros(1)\n    return y.to(device=DEVICE)\n"}, []string{"F308 work.py:5"}},
	{"F308 in a lambda and a method", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\nclass App:\n    device = 'cuda:0'\n    def handle(self, x):\n        return torch.ones(2, device=self.device).sum().item()\napp = App()\n@spaces.GPU\ndef run(x):\n    return x\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(fn=app.handle, inputs=[t], outputs=[t])\n    t.change(lambda x: torch.tensor([1.0]).cuda().item(), t, t)\n    t.blur(run, t, t)\ndemo.launch()\n"}, []string{"F308 app.py:7", "F308 app.py:15"}},
	{"F308 in handlers of a loop", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@spaces.GPU\ndef run(x):\n    return x\ndef size(x):\n    return torch.ones(2).cuda().sum().item()\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    for label, handler in [('Run', run), ('Size', size)]:\n        gr.Button(label).click(handler, t, t)\ndemo.launch()\n"}, []string{"F308 app.py:8"}},
	{"F308 where it may run", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@spaces.GPU\ndef run(x):\n    return x\ndef handler(x, gpu):\n    y = torch.ones(1)\n    if gpu:\n        y = y.to('cuda')\n    return y.item()\nwith gr.Blocks() as demo:\n    t = gr.Textbox(); c = gr.Checkbox()\n    t.submit(handler, [t, c], t)\n    t.change(run, t, t)\ndemo.launch()\n"}, []string{"F308 app.py:10"}},
	{"F309 in a module", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport setup\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "setup.py": "import torch\ntorch.set_default_device('cuda')\nbuffer = torch.zeros(3)\n"}, []string{"F309 setup.py:3"}},
	{"F309 in a constructor", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\nclass Model:\n    def __init__(self):\n        self.generator = torch.Generator('cuda')\nmodel = Model()\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf}, []string{"F309 app.py:6"}},
	{"F315 of another module", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch, models\n@spaces.GPU\ndef run(x):\n    return models.net(torch.ones(1, 2, device='cuda')).item()\ndef preview(x):\n    with torch.no_grad():\n        return models.net(torch.ones(1, 2)).item()\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(preview, t, t)\n    t.change(run, t, t)\ndemo.launch()\n", "models.py": "import torch\nnet = torch.nn.Linear(2, 1)\nnet.eval()\nnet.to('cuda')\n"}, []string{"F315 app.py:9"}},
	{"F315 of a pipeline", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom transformers import pipeline\nasr = pipeline('automatic-speech-recognition', device=0)\n@spaces.GPU\ndef run(x):\n    return asr(x)['text']\ndef quick(x):\n    return asr(x)['text']\ngr.TabbedInterface([gr.Interface(run, 'audio', 'text'), gr.Interface(fn=quick, inputs='audio', outputs='text')]).launch()\n"}, []string{"F315 app.py:9"}},
	{"F315 of an attribute", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\nclass App:\n    def __init__(self):\n        self.net = torch.nn.Linear(2, 1)\n        self.net.to('cuda')\n    def handle(self, x):\n        return self.net(torch.ones(1, 2)).item()\napp = App()\n@spaces.GPU\ndef run(x):\n    return x\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(app.handle, t, t)\n    t.change(run, t, t)\ndemo.launch()\n"}, []string{"F315 app.py:9"}},
	{"F315 of a loaded model", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\nsecond = None\ndef load():\n    net = torch.nn.Linear(2, 1)\n    net = net.to('cuda')\n    return net\ndef setup():\n    global second\n    second = torch.nn.Linear(2, 1).cuda()\nfirst = load()\nsetup()\n@spaces.GPU\ndef run(x):\n    return x\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(lambda x: first(torch.ones(1, 2)).item(), t, t)\n    t.focus(lambda x: second(torch.ones(1, 2)).item(), t, t)\n    t.change(run, t, t)\ndemo.launch()\n"}, []string{"F315 app.py:19", "F315 app.py:20"}},
	{"G307 through a name", map[string]string{"app.py": "from spaces import GPU as gpu\nimport gradio as gr\n@gpu(duration=20)\nasync def run(x):\n    return x\n" + interfaceOf}, []string{"G307 app.py:4"}},
	{"G311 handed on", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x, event):\n    return x\ndef pick(x, event: gr.EventData):\n    return run(x, event)\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    t.submit(pick, t, t)\ndemo.launch()\n"}, []string{"G311 app.py:7"}},
	{"G312 in other forms", map[string]string{"app.py": "import threading\nimport spaces\nimport gradio as gr\nlock = threading.Lock()\n@spaces.GPU\ndef run(x, callback=None, source=None):\n    return x\ndef first(x):\n    def inner(y):\n        return y\n    return run(x, callback=inner)\ndef second(x):\n    return run((c for c in x))\ndef third(x):\n    with open('a.txt') as file:\n        return run(x, source=file)\ndef fourth(x):\n    return run(x, source=lock)\nwith gr.Blocks() as demo:\n    t = gr.Textbox()\n    for f in (first,):\n        t.submit(first, t, t)\n    t.change(second, t, t)\n    t.blur(third, t, t)\n    t.focus(fourth, t, t)\ndemo.launch()\n"}, []string{"G312 app.py:11", "G312 app.py:13", "G312 app.py:16", "G312 app.py:18"}},
	{"G313", map[string]string{"app.py": "import spaces\nimport gradio as gr\nclass Model:\n    @spaces.GPU(duration=10)\n    def run(self, x):\n        return x\nmodel = Model()\ngr.Interface(model.run, 'text', 'text').launch()\n"}, []string{"G313 app.py:5"}},
	{"G314 as a decorator", map[string]string{"app.py": "import spaces\nimport gradio as gr\nimport torch\n@torch.compile\ndef step(x):\n    return x\n@spaces.GPU\ndef run(x):\n    return step(x)\n" + interfaceOf}, []string{"G314 app.py:4"}},
	{"G321 in other forms", map[string]string{"app.py": "import multiprocessing as mp\nimport spaces\nimport gradio as gr\nfrom concurrent.futures import ProcessPoolExecutor\nfrom torch.utils.data import DataLoader\ndef work(x):\n    with ProcessPoolExecutor() as pool:\n        return list(pool.map(str, [x]))\n@spaces.GPU\ndef run(x):\n    loader = DataLoader([x], num_workers=4)\n    mp.Process(target=print).start()\n    return work(x)\n" + interfaceOf}, []string{"G321 app.py:7", "G321 app.py:11", "G321 app.py:12"}},
	{"processes and nothing else", map[string]string{"app.py": "import multiprocessing\nimport spaces\nimport gradio as gr\n@spaces.GPU\ndef run(x):\n    multiprocessing.Process(target=print).start()\n" + interfaceOf}, []string{"G321 app.py:6"}},
	{"H402 through a constant", map[string]string{"app.py": "import spaces\nimport gradio as gr\nLIMIT = '60'\n@spaces.GPU(duration=LIMIT)\ndef run(x):\n    return x\n" + interfaceOf}, []string{"H402 app.py:4"}},
	{"H403 of a handler's call", map[string]string{"app.py": "import spaces\nimport gradio as gr\ndef seconds(prompt, steps):\n    return steps\n@spaces.GPU(duration=seconds)\ndef run(prompt, *, steps=4, seed=0):\n    return prompt\ndef handler(prompt):\n    return run(prompt, steps=3, seed=1)\ngr.Interface(handler, 'text', 'text').launch()\n"}, []string{"H403 app.py:3"}},
	{"H403 of a lambda", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU(duration=lambda: 30)\ndef run(x):\n    return x\n" + interfaceOf}, []string{"H403 app.py:3"}},
	{"H404 text and coroutine", map[string]string{"app.py": "import spaces\nimport gradio as gr\ndef text(x):\n    return f'{len(x)}'\nasync def later(x):\n    return 5\n@spaces.GPU(duration=text)\ndef run(x):\n    return x\n@spaces.GPU(duration=later)\ndef other(x):\n    return x\ngr.Interface(other, 'text', 'text')\n" + interfaceOf}, []string{"H404 app.py:4", "H404 app.py:5"}},
	{"H404 nothing", map[string]string{"app.py": "import spaces\nimport gradio as gr\ndef seconds(x):\n    print(x)\n@spaces.GPU(duration=seconds)\ndef run(x):\n    return x\n" + interfaceOf}, []string{"H404 app.py:3"}},
	{"H405 days and negative", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom datetime import timedelta\n@spaces.GPU(duration=timedelta(days=1))\ndef run(x):\n    return x\n@spaces.GPU(duration=-1)\ndef other(x):\n    return x\n" + interfaceOf}, []string{"H405 app.py:4", "H405 app.py:7"}},
	{"H408 by position", map[string]string{"app.py": "import spaces\nimport gradio as gr\n@spaces.GPU('60')\ndef run(x):\n    return x\n@spaces.GPU(size='medium')\ndef other(x):\n    return x\n" + interfaceOf}, []string{"H408 app.py:3", "H408 app.py:6"}},
	{"S600 in a module", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom lib import run\n" + interfaceOf, "lib.py": "print 'hello'\n"}, []string{"S600 lib.py:1"}},
	{"S605 name and module", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom pkg.helpers import load, save\nimport pkg.missing\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "pkg/__init__.py": "", "pkg/helpers.py": "def load():\n    pass\n"}, []string{"S605 app.py:3", "S605 app.py:4"}},
	{"S605 relative import of the app", map[string]string{"app.py": "import spaces\nimport gradio as gr\nfrom .helpers import load\n@spaces.GPU\ndef run(x):\n    return x\n" + interfaceOf, "helpers.py": "def load():\n    pass\n"}, []string{"S605 app.py:3"}},
}

func TestBrokenSpaces(t *testing.T) {
	for _, row := range broken {
		t.Run(row.name, func(t *testing.T) {
			out := read(t, writeFiles(t, row.files))
			if got := places(t, out.Facts, Warning); !slices.Equal(got, row.want) {
				t.Errorf("findings %q, want %q; %q", got, row.want, out.NotLookedAt)
			}
		})
	}
}

func TestTokens(t *testing.T) {
	token := "hf_" + "QwKzRtYbNmPdVxLsHgJfCcUeWaTiOoEyRu" // no valid one
	dir := writeFiles(t, map[string]string{"app.py": "TOKEN = \"" + token + "\"\n", ".env": "KEY=sk-" + "proj-" + "9aFq3LmZx7TnVbR2sKwYcE8uJ5hGd0Pq4XoNi6Mt1B\n", "README.md": "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx sk-your-key-here-your-key-here-your-key-here\n"})
	out := read(t, dir)
	if got, want := places(t, out.Facts, Error), []string{"B602 .env:1", "B602 app.py:1"}; !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
}
