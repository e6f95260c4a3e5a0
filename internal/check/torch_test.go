package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
)

// torchPython returns an interpreter with torch, gradio and spaces: the path in SPACEHOST_TORCH, or for the value 1 one that
// the builder makes.
func torchPython(t *testing.T) string {
	t.Helper()
	switch given := os.Getenv("SPACEHOST_TORCH"); given {
	case "":
		t.Skip("SKIPPED: torch needs 7 GB of packages; run make torch to test it")
	case "1":
		cache, err := buildtest.Cache()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
		defer cancel()
		dir := filepath.Join("..", "..", "cmd", "spacehost", "testdata", "spaces", "torch")
		builder := build.New(build.Config{Dir: filepath.Join(cache, "environments"), LogPath: filepath.Join(t.TempDir(), "build.log")})
		env, err := builder.Build(ctx, build.Spec{Gradio: "6.31.0", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return env.Python
	default:
		return given
	}
	return ""
}

// noGPU are the words without a GPU. They depend on whether the machine has a driver.
const noGPU = "RuntimeError: "

// TestRealFailuresWithTorch shows the failures of the rules about CUDA with the real spaces package and a CUDA build of torch.
func TestRealFailuresWithTorch(t *testing.T) {
	const lowLevel = "Low-level CUDA init (`torch._C._cuda_init`) reached"
	expect(t, torchPython(t), []realCase{
		{"E301", "E-is-available-before-spaces", `[]`, "CUDA has been initialized before importing the `spaces` package"},
		{"E301", "E-to-cuda-before-spaces", `[]`, noGPU},
		{"E301", "E301 in a module", `[]`, "CUDA has been initialized before importing the `spaces` package"},
		{"E304", "F-no-import-spaces", `[]`, noGPU},
		{"F308", "F-no-decorator", `[["compare", "a"], ["run", "a"]]`, lowLevel},
		{"F308", "F308 through helpers and threads", `[["handler", "a"]]`, lowLevel},
		{"F309", "F-int-device", `[]`, lowLevel},
		{"F309", "F309 in a module", `[]`, lowLevel},
		{"F309", "F309 in a constructor", `[]`, "Error"},
		{"F315", "F-silent-zeros", `[["embed", "a"]]`, "value '[[0.0, 0.0]]'"},
		{"F315", "F315 of another module", `[["preview", "a"]]`, "value 0.0"},
	})
}

// TestListsOfCalls compares the lists of reader/cuda.py with the real packages, call by call.
func TestListsOfCalls(t *testing.T) {
	python := torchPython(t)
	const app = "import gradio as gr\nimport torch\n%simport spaces\n%sgr.Interface(str, \"text\", \"text\").launch()\n"
	asking := []string{"torch.cuda.is_available()", "torch.cuda.is_bf16_supported()", "torch.cuda.get_arch_list()", "torch.accelerator.is_available()", "torch.cuda.amp.GradScaler()"}
	low := []string{"torch.cuda.set_device(0)", "torch.cuda.init()", "torch.cuda.current_stream()", "torch.cuda.ipc_collect()", "torch.cuda.Stream()", "torch.Generator('cuda')", "torch.cuda.reset_peak_memory_stats()", "torch.ones(1).pin_memory()"}
	harmless := []string{"torch.cuda.empty_cache()", "torch.cuda.manual_seed_all(0)", "torch.device('cuda')", "torch.cuda.memory_allocated()", "torch.backends.cudnn.version()"}
	var cases []realCase
	for _, call := range asking {
		cases = append(cases, realCase{"E301 " + call, writeFiles(t, map[string]string{"app.py": fmt.Sprintf(app, call+"\n", "")}), `[]`, "CUDA has been initialized"})
	}
	for _, call := range low {
		cases = append(cases, realCase{"F309 " + call, writeFiles(t, map[string]string{"app.py": fmt.Sprintf(app, "", call+"\n")}), `[]`, "Error"})
	}
	for _, call := range harmless {
		cases = append(cases, realCase{"no rule: " + call, writeFiles(t, map[string]string{"app.py": fmt.Sprintf(app, call+"\n", call+"\n")}), `[]`, "no report"})
	}
	expect(t, python, cases)
	for _, c := range cases {
		out := read(t, c.space)
		errors := strings.Join(places(t, out.Facts, Error), " ")
		if rule, _, _ := strings.Cut(c.rule, " "); rule != "no" && !strings.Contains(errors, rule) || rule == "no" && strings.ContainsAny(errors, "EF") {
			t.Errorf("%s: the reader reports %q", c.rule, errors)
		}
	}
}
