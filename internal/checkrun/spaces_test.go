package checkrun

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/check"
	"spacehost/quota"
)

const spacesDir = "../check/testdata/spaces"

// spaces are the findings of Spaces with a typical fault of each bucket: the place, the rule and the earliest stage that can know it. Those of
// stage read have a test in package check; here they show that start and calls do not repeat them.
var spaces = []struct {
	name  string
	torch bool
	want  []string
}{
	{name: "A-health-async-gpu", want: []string{"app.py:5 G307 read"}},
	{name: "A-health-download-at-start", want: []string{"app.py:5 A803 run"}},
	{name: "A-health-never-ending-start", want: []string{"app.py:9 A606 read"}},
	{name: "A-health-no-gpu-function", want: []string{"app.py:2 A305 read"}},
	{name: "A-health-no-launch", want: []string{"app.py:8 A606 read"}},
	{name: "B-drift-unpinned-sdk", want: []string{"README.md:4 B101 read", "app.py:9 B801 run"}},
	{name: "B-global-mutation", want: []string{"app.py:6 B802 call"}},
	{name: "B-hardware-cpu-duplicate", torch: true},
	{name: "B-hardware-name", torch: true, want: []string{". A801 run"}},
	{name: "B-secret-keyerror", want: []string{"app.py:5 B601 read"}},
	{name: "C-calls-other-space-without-token", want: []string{"app.py:5 A803 run", "app.py:5 C507 read"}},
	{name: "C-examples-eager", want: []string{"app.py:8 C319 read"}},
	{name: "C-plain-fetch-frontend", want: []string{"app.py:18 C506 read"}},
	{name: "C-three-images", want: []string{"app.py:5 C406 call", "app.py:7 C322 read"}},
	{name: "D-fastapi-route-gpu", want: []string{"app.py:14 C504 read", "app.py:18 A311 read"}},
	{name: "D-path-from-client"},
	{name: "E-diffusers-first", torch: true, want: []string{"app.py:3 E302 run"}},
	{name: "E-is-available-before-spaces", torch: true, want: []string{"app.py:4 E301 read"}},
	{name: "E-to-cuda-before-spaces", torch: true, want: []string{"app.py:4 E301 read"}},
	{name: "F-int-device", torch: true, want: []string{"app.py:6 F309 read", "app.py:7 F309 read"}},
	{name: "F-no-decorator", torch: true, want: []string{"app.py:12 F308 read"}},
	{name: "F-no-import-spaces", torch: true, want: []string{"app.py:4 E304 read", "app.py:7 F308 read"}},
	{name: "F-silent-zeros", torch: true, want: []string{"app.py:13 F315 read"}},
	{name: "G-cuda-tensor-return", torch: true, want: []string{"app.py:7 G315 read"}},
	{name: "G-exception", want: []string{"app.py:6 G801 call"}},
	{name: "G-lambda-arg", want: []string{"app.py:9 G312 read"}},
	{name: "G-lazy-load-inside", torch: true, want: []string{"app.py:12 C322 read", "app.py:13 G318 read"}},
	{name: "G-overstay", want: []string{"app.py:5 G802 call", "app.py:7 C322 read"}},
	{name: "G-select-data", want: []string{"app.py:5 G311 read"}},
	{name: "G-torch-compile", torch: true, want: []string{"app.py:6 G314 read"}},
	{name: "H-dynamic-too-long", want: []string{"app.py:7 H407 read"}},
	{name: "H-dynamic-wrong-signature", want: []string{"app.py:4 H403 read"}},
	{name: "H-string-duration", want: []string{"app.py:4 H402 read"}},
}

// TestSpaces checks all these Spaces at every stage. `make check-buckets` runs it.
func TestSpaces(t *testing.T) {
	if os.Getenv("SPACEHOST_CHECK_BUCKETS") == "" {
		t.Skip("SKIPPED: it takes minutes; run make check-buckets")
	}
	torch := os.Getenv("SPACEHOST_TORCH")
	for _, row := range spaces {
		t.Run(row.name, func(t *testing.T) {
			if row.torch && torch == "" {
				t.Skip("SKIPPED: needs torch, peft and bitsandbytes; set SPACEHOST_TORCH to an interpreter that has them")
			}
			t.Parallel()
			o := Options{Dir: copied(t, filepath.Join(spacesDir, row.name)), Call: true, Limits: newestLimits(t)}
			if row.torch {
				o.Python = torch
			}
			report := read(t, o.Dir)
			runOn(t, o, report)
			var got []string
			for _, f := range report.Findings {
				if f.Severity != check.Info || f.ID == "C406" && slices.ContainsFunc(row.want, func(w string) bool { return strings.Contains(w, " C406 ") }) {
					got = append(got, fmt.Sprintf("%s %s %s", f.Place(), f.ID, f.Stage))
				}
			}
			if slices.Sort(got); !slices.Equal(got, row.want) {
				t.Errorf("findings:\n  got  %q\n  want %q\n  %+v", got, row.want, report.Findings)
			}
		})
	}
}

// read performs stage read.
func read(t *testing.T, dir string) *check.Report {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	tiers, err := quota.Presets(quota.NewestPreset)
	if err != nil {
		t.Fatal(err)
	}
	report, err := check.Read(t.Context(), check.Options{Dir: dir, Python: python, Tiers: tiers, Tier: "free", Hardware: gpu.KnownHardware[gpu.NewestHardware]})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func newestLimits(t *testing.T) check.DurationLimits {
	t.Helper()
	tiers, err := quota.Presets(quota.NewestPreset)
	if err != nil {
		t.Fatal(err)
	}
	return check.Options{Tiers: tiers, Tier: "free", Hardware: gpu.KnownHardware[gpu.NewestHardware]}.Limits()
}

// TestObservedLibraries starts Spaces whose libraries use CUDA at the start. Reading cannot know that: it depends on versions.
func TestObservedLibraries(t *testing.T) {
	torch := os.Getenv("SPACEHOST_TORCH")
	if torch == "" || exec.Command(torch, "-c", "import transformers, diffusers").Run() != nil {
		t.Skip("SKIPPED: needs torch, transformers 5 and diffusers; set SPACEHOST_TORCH to an interpreter that has them")
	}
	for _, row := range []struct{ name, app, want, text string }{
		{"diffusers", `
import gradio as gr
from diffusers import DiffusionPipeline
import spaces
`, "app.py:3 error E302 run", "(torch.accelerator.is_available in diffusers/utils/torch_utils.py:"},
		{"device map", `
import spaces
import gradio as gr
from transformers import BertConfig, BertModel

BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=100)).save_pretrained("bert")
model = BertModel.from_pretrained("bert", device_map="cuda")
`, "app.py:7 error F310 run", `device_map="cuda" reaches CUDA`},
		{"set_device", `
import spaces
import torch

torch.cuda.set_device(0)
`, "app.py:5 error F309 run", "torch.cuda.set_device"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r, _ := run(t, Options{Dir: writeSpace(t, row.app, ""), Python: torch})
			want(t, r, row.want)
			if len(r.Findings) > 0 && !strings.Contains(r.Findings[0].Text, row.text) {
				t.Errorf("text %q, want %q in it", r.Findings[0].Text, row.text)
			}
		})
	}
}
