package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/build"
)

const torchDir = "testdata/spaces/torch"

// torchPython is an interpreter with torch: the one that SPACEHOST_TORCH names, or for 1 one that the builder makes.
func torchPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("SPACEHOST_TORCH")
	switch python {
	case "":
		t.Skip("SKIPPED: torch was not tried on simulated GPUs, it takes 7 GB; make torch does")
	case "1":
		dir, err := cache()
		if err != nil {
			t.Fatal(err)
		}
		b := build.New(build.Config{Dir: filepath.Join(dir, "environments")})
		env, err := b.Build(context.Background(), build.Spec{Gradio: gradioVersions["v6"], Dir: torchDir}, false)
		if err != nil {
			t.Fatal(err)
		}
		python = env.Python
	}
	return python
}

// TestTorchOnSimulatedGPUs: a Space that uses torch as on a GPU goes as there, and what cannot says so to its visitor.
func TestTorchOnSimulatedGPUs(t *testing.T) {
	p := runProduct(t, onGradio(t, t.TempDir(), "v6", torchDir), "--tier", "unlimited", "--python", torchPython(t))
	c := p.client()
	words := map[string]string{
		"refused_other_device": "RuntimeError", // spaces shows no more of an exception than its class
		"refused_at_home":      "RuntimeError",
		"refused_numpy":        "TypeError",
		"gpu_only_operator":    "simulated GPU (no NVIDIA GPU on this machine, computing on the CPU): the operator aten::_cudnn_rnn_flatten_weight has a CUDA kernel only, so it cannot run here; on a ZeroGPU Space it will run on the GPU.",
		"gpu_only_graph":       "simulated GPU (no NVIDIA GPU on this machine, computing on the CPU): a CUDA graph needs an NVIDIA GPU, so it cannot run here; on a ZeroGPU Space it will run on the GPU.",
	}
	all := strings.Fields(c.ok("/cases"))
	if len(all) < 15 {
		t.Fatalf("only the cases %v", all)
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
			t.Errorf("the author does not read %q", want)
		}
	}
	if got := c.ok("/stream", 3); !strings.HasPrefix(got, "18.0 cuda:0") {
		t.Errorf("the stream ends with %q", got)
	}
	if b := p.balance(); b.HeldSeconds != 0 {
		t.Errorf("%v s are held after the last call", b.HeldSeconds)
	}
}

// TestChainScript keeps what `make gpu` runs in order, on simulated GPUs.
func TestChainScript(t *testing.T) {
	python := torchPython(t)
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
	for _, want := range []string{"GPU task aborted", "who had it", "a warm GPU call over a plain one"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}
