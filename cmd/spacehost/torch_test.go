package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/cli"
)

const torchDir = "testdata/spaces/torch"

// torchPythons returns interpreters with torch, by name: the path in SPACEHOST_TORCH, or for the value 1 those that the builder
// makes with both tested releases of spaces.
func torchPythons(t *testing.T) map[string]string {
	t.Helper()
	switch given := os.Getenv("SPACEHOST_TORCH"); given {
	case "":
		t.Skip("SKIPPED: torch on simulated GPUs needs 7 GB of packages; run make torch to test it")
	case "1":
		stable, err := buildIn(gradioVersions["v6"], torchDir, false)
		if err != nil {
			t.Fatal(err)
		}
		newer, err := buildWith(gradioVersions["v6"], torchDir, newSpacesRequirement, false)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"spaces " + stable.Spaces: stable.Python, "spaces " + newer.Spaces: newer.Python}
	default:
		return map[string]string{"given": given}
	}
	return nil
}

// eachTorch runs a test with each interpreter of torchPythons.
func eachTorch(t *testing.T, test func(t *testing.T, python string)) {
	for name, python := range torchPythons(t) {
		t.Run(name, func(t *testing.T) { test(t, python) })
	}
}

// TestTorchOnSimulatedGPUs runs a Space that uses torch as on a GPU. Supported code works as there, and unsupported operators return
// an error that names the reason.
func TestTorchOnSimulatedGPUs(t *testing.T) { eachTorch(t, torchOnSimulatedGPUs) }

func torchOnSimulatedGPUs(t *testing.T, python string) {
	t.Helper()
	p := runProduct(t, onGradio(t, t.TempDir(), "v6", torchDir), "--tier", "unlimited", "--python", python)
	c := p.client()
	words := map[string]string{
		"refused_other_device": "RuntimeError", // `spaces` shows only the class of an exception
		"refused_at_home":      "RuntimeError",
		"refused_numpy":        "TypeError",
		"gpu_only_operator":    "simulated GPU (no NVIDIA GPU on this machine, computing on the CPU): the operator aten::_cudnn_rnn_flatten_weight has a CUDA kernel only, so it cannot run here; on a ZeroGPU Space it will run on the GPU.",
		"gpu_only_graph":       "simulated GPU (no NVIDIA GPU on this machine, computing on the CPU): a CUDA graph needs an NVIDIA GPU, so it cannot run here; on a ZeroGPU Space it will run on the GPU.",
	}
	all := strings.Fields(c.ok("/cases"))
	if len(all) < 15 {
		t.Fatalf("the Space has only the cases %v, want at least 15", all)
	}
	for _, name := range all {
		r := c.call("/run", name)
		if want, refused := words[name]; refused {
			if !r.Failed || r.Err != want {
				t.Errorf("%s: got %+v, want the error %q", name, r, want)
			}
		} else if r.Failed {
			t.Errorf("%s: %s", name, r.Err)
		}
	}
	for _, want := range []string{"at least two devices, cuda:0 and cpu!", "can't convert cuda:0 device type tensor to numpy"} {
		if !strings.Contains(p.text(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if got := c.ok("/stream", 3); !strings.HasPrefix(got, "18.0 cuda:0") {
		t.Errorf("the last value of the stream: got %q", got)
	}
	if b := p.balance(); b.HeldSeconds != 0 {
		t.Errorf("%v s are held after the last call, want 0", b.HeldSeconds)
	}
}

// TestChainScript runs the script of `make gpu` on simulated GPUs, to keep it working.
func TestChainScript(t *testing.T) { eachTorch(t, chainScript) }

func chainScript(t *testing.T, python string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := exec.CommandContext(t.Context(), python, "../../bench/gpu/chain.py", "--spacehost", self, "--gpus", "mock:1xH200")
	script.Env = productEnv(t)
	out, err := script.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"GPU task aborted", "order of the calls", "a warm GPU call over a plain one"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the script's output lacks %q:\n%s", want, out)
		}
	}
}

const (
	availableFirstApp = `
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"

import spaces
`
	tensorFirstApp = `
import torch

model = torch.nn.Linear(8, 8).to("cuda")

import spaces
`
	acceleratorFirstApp = `
import helper
import spaces
`
	leavingApp = `
import subprocess
import sys

import gradio as gr
import spaces
import torch

@spaces.GPU(duration=5)
def encode(kind):
    vector = torch.ones(3, device="cuda")
    return {"cuda": vector, "nested": {"items": [vector]}, "cpu": vector.cpu()}[kind]

@spaces.GPU(duration=5)
def steps():
    yield torch.zeros(3)
    yield torch.ones(3, device="cuda")

@spaces.GPU(duration=5)
def child(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout + done.stderr

def handler(kind):
    return str(encode(kind))

def stream():
    for one in steps():
        yield str(one)

with gr.Blocks() as demo:
    kind, out = gr.Textbox(), gr.Textbox()
    gr.Button().click(handler, kind, out, api_name="handler")
    gr.Button().click(stream, None, out, api_name="stream")
    gr.Button().click(child, kind, out, api_name="child")
demo.launch()
`
)

// TestTorchBeforeSpaces checks that a Space that initializes CUDA before `import spaces` ends in the words of ZeroGPU, with the
// line that did it.
func TestTorchBeforeSpaces(t *testing.T) { eachTorch(t, torchBeforeSpaces) }

func torchBeforeSpaces(t *testing.T, python string) {
	t.Helper()
	const refusal = "RuntimeError: CUDA has been initialized before importing the `spaces` package. Try importing `spaces` before any other CUDA-related package."
	for _, row := range []struct {
		name, app string
		want      []string
	}{
		{"torch.cuda.is_available", availableFirstApp, []string{refusal, "CUDA was first used in app.py:4 (torch.cuda.is_available). `spaces` is imported in app.py:6."}},
		{"a module and torch.accelerator", acceleratorFirstApp, []string{refusal, "CUDA was first used in helper.py:3 (torch.accelerator.is_available). `spaces` is imported in app.py:3."}},
		{"a model on cuda", tensorFirstApp, []string{"RuntimeError: No CUDA GPUs are available", "CUDA was first used in app.py:4 (torch.nn.modules.module.to), without or before `import spaces`"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := writeSpace(t, "v6", row.app)
			if err := os.WriteFile(filepath.Join(dir, "helper.py"), []byte("import torch\n\nDEVICE = torch.accelerator.is_available()\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			p := startProduct(t, t.TempDir(), dir, "--python", python)
			<-p.ended
			if code := p.cmd.ProcessState.ExitCode(); code != cli.ExitRuntime {
				t.Errorf("exit code %d, want %d", code, cli.ExitRuntime)
			}
			for _, want := range row.want {
				if !strings.Contains(p.text(), want) {
					t.Errorf("the screen lacks %q", want)
				}
			}
		})
	}
}

// TestTorchLeavesTheWorker checks results on cuda, which ZeroGPU cannot deliver, and a child process that looks for the GPU.
func TestTorchLeavesTheWorker(t *testing.T) { eachTorch(t, torchLeavesTheWorker) }

func torchLeavesTheWorker(t *testing.T, python string) {
	t.Helper()
	p := runProduct(t, writeSpace(t, "v6", leavingApp), "--tier", "unlimited", "--python", python)
	c := p.client()
	const refusal = "the GPU function returns or yields a tensor on cuda, of shape (3,). On ZeroGPU this call hangs or fails"
	for _, kind := range []string{"cuda", "nested"} {
		if r := c.call("/handler", kind); !r.Failed || !strings.Contains(r.Err, refusal) {
			t.Errorf("%s: got %+v, want an error with %q", kind, r, refusal)
		}
	}
	if got := c.ok("/handler", "cpu"); got != "tensor([1., 1., 1.])" {
		t.Errorf("a tensor on the CPU arrives as %q", got)
	}
	if r := c.call("/stream"); !r.Failed || !strings.Contains(r.Err, refusal) {
		t.Errorf("a generator: got %+v, want an error with %q", r, refusal)
	}
	if b := p.balance(); b.HeldSeconds != 0 {
		t.Errorf("%v s are held after the refused results", b.HeldSeconds)
	}

	const report = "uses torch.cuda in a child process of a GPU function, and finds no GPU"
	if got := c.ok("/child", "import torch; print(torch.cuda.is_available())"); got != "False\n" {
		t.Errorf("a child that looks for a GPU prints %q", got)
	}
	if !strings.Contains(p.text(), report) {
		t.Errorf("the screen lacks %q", report)
	}
	if got := c.ok("/child", "import torch; torch.ones(3).to('cuda')"); !strings.Contains(got, report) {
		t.Errorf("a child that uses CUDA prints %q, want %q in it", got, report)
	}
}
