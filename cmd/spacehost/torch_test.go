package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const torchDir = "testdata/spaces/torch"

// torchPythons returns interpreters with torch: the one that SPACEHOST_TORCH names, or for 1 those that the builder makes, with
// both tested releases of spaces.
func torchPythons(t *testing.T) map[string]string {
	switch given := os.Getenv("SPACEHOST_TORCH"); given {
	case "":
		t.Skip("SKIPPED: torch was not tried on simulated GPUs, it takes 7 GB; make torch does")
	case "1":
		stable, err := buildIn(gradios["v6"], torchDir, false)
		if err != nil {
			t.Fatal(err)
		}
		newer, err := buildWith(gradios["v6"], torchDir, newSpacesRequirement, false)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"spaces " + stable.Spaces: stable.Python, "spaces " + newer.Spaces: newer.Python}
	default:
		return map[string]string{"given": given}
	}
	return nil
}

// eachTorch runs a test with each of them.
func eachTorch(t *testing.T, test func(t *testing.T, python string)) {
	for name, python := range torchPythons(t) {
		t.Run(name, func(t *testing.T) { test(t, python) })
	}
}

// TestTorchOnSimulatedGPUs: a Space that uses torch as on a GPU goes as there, and what cannot says so to its visitor.
func TestTorchOnSimulatedGPUs(t *testing.T) { eachTorch(t, torchOnSimulatedGPUs) }

func torchOnSimulatedGPUs(t *testing.T, python string) {
	p := runProduct(t, onGradio(t, t.TempDir(), "v6", torchDir), "--tier", "unlimited", "--python", python)
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
func TestChainScript(t *testing.T) { eachTorch(t, chainScript) }

func chainScript(t *testing.T, python string) {
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
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}
