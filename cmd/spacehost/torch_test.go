package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
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
