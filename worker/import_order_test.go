package worker

import (
	"strings"
	"testing"
)

// TestImportOrder checks that a Space that uses CUDA before `import spaces` ends with the words of spaces and with the
// line of that use, with builds of torch with and without CUDA.
func TestImportOrder(t *testing.T) {
	const refusal = "RuntimeError: CUDA has been initialized before importing the `spaces` package. " +
		"Try importing `spaces` before any other CUDA-related package."
	for _, row := range []struct {
		name string
		want []string // nil: the Space starts
	}{
		{"the app", []string{refusal, "CUDA was first used in app.py:11 (torch.cuda.is_available). `spaces` is imported in app.py:23."}},
		{"a module of the app", []string{refusal, "CUDA was first used in helper.py:3 (torch.accelerator.is_available). `spaces` is imported in app.py:23."}},
		{"a library", []string{refusal, "CUDA was first used in looks_for_gpus.py:3 (torch.cuda.is_available), reached from app.py:15. `spaces` is imported in app.py:23."}},
		{"a tensor", []string{"RuntimeError: No CUDA GPUs are available", "CUDA was first used in app.py:19 (torch.to), without or before `import spaces`: import `spaces` first"}},
		{"torch alone", nil},
		{"after spaces", nil},
	} {
		for _, build := range []string{"cpu", "cuda"} {
			t.Run(row.name+" "+build, func(t *testing.T) {
				p, r := startApp(t, "import_order", func(c *ProcessConfig) {
					c.Simulated = true
					c.Env = append(c.Env, "CASE="+row.name, "BUILD="+build)
				})
				if row.want == nil {
					r.awaitLine(t, p, "started")
				}
				within(t, patient, "the app ends", p.Done())
				if printed := strings.Join(r.printed(), "\n"); row.want == nil && strings.Contains(printed, "Error") {
					t.Errorf("it prints an error: %s", printed)
				}
				for _, want := range row.want {
					r.awaitLine(t, p, want)
				}
			})
		}
	}
}

// TestImportOrderByNVML checks the setting with which torch.cuda.is_available does not initialize CUDA.
func TestImportOrderByNVML(t *testing.T) {
	p, r := startApp(t, "import_order", func(c *ProcessConfig) {
		c.Simulated = true
		c.Env = append(c.Env, "CASE=the app", "BUILD=cpu", "PYTORCH_NVML_BASED_CUDA_CHECK=1")
	})
	r.awaitLine(t, p, "started")
	within(t, patient, "the app ends", p.Done())
}
