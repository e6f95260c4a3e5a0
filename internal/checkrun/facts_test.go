package checkrun

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"spacehost/internal/build"
	"spacehost/internal/check"
	"spacehost/internal/space"
	"spacehost/worker"
)

// TestBuildFacts covers failed builds. One of the machine is no finding.
func TestBuildFacts(t *testing.T) {
	failed := func(e build.Error) error {
		e.File = "requirements.txt"
		return fmt.Errorf("x: %w", &e)
	}
	for name, row := range map[string]struct {
		err  error
		want []string
		text string
	}{
		"header": {failed(build.Error{Problem: `requirements.txt: "pyaudio" could not be built`, Hint: "add it", Requirement: "pyaudio", Line: 2, Missing: build.Missing{Name: "portaudio.h", Package: "portaudio19-dev"}}),
			[]string{"requirements.txt:2 warning A204 build"}, "pyaudio has no wheel for this Python, and its build from source fails: portaudio.h, of the Debian package portaudio19-dev, is missing."},
		"module": {failed(build.Error{Requirement: "flash-attn", Line: 1, Missing: build.Missing{Name: "torch", Module: true}}),
			[]string{"requirements.txt:1 warning A204 build"}, "the module torch is missing"},
		"typo": {failed(build.Error{Problem: `requirements.txt: no package "opencv-pyton" was found in the index`, Hint: "correct its name", Requirement: "opencv-pyton", Line: 1}),
			[]string{"requirements.txt:1 error A207 build"}, `no package "opencv-pyton" was found in the index.`},
		"pinned gradio": {failed(build.Error{Requirement: "gradio==4.44.1", Line: 7}), []string{"requirements.txt:7 error A202 read"}, ""},
		"machine":       {failed(build.Error{Problem: "a disk is full"}), nil, ""},
		"host":          {errors.New("no address"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r check.Report
			if name == "pinned gradio" {
				if err := r.Add(check.StageRead, check.Fact{Rule: "A202", File: "requirements.txt", Line: 7}); err != nil {
					t.Fatal(err)
				}
				r.Findings[0].Text = ""
			}
			if err := newObservations().addTo(&r, check.DurationLimits{}, row.err, true); err != nil {
				t.Fatal(err)
			}
			if got := lines(r); !slices.Equal(got, row.want) {
				t.Errorf("findings %q, want %q", got, row.want)
			}
			if len(r.Findings) > 0 && !contains(r.Findings[0].Text, row.text) {
				t.Errorf("text %q, want %q in it", r.Findings[0].Text, row.text)
			}
			if len(r.Performed) > 0 {
				t.Errorf("stages %v, want none", r.Performed)
			}
		})
	}
}

func contains(text, part string) bool { return containsBytes([]byte(text), part) }

// TestObservationsBecomeFindings covers what is dropped, merged and turned into remarks.
func TestObservationsBecomeFindings(t *testing.T) {
	start := &worker.StartError{Stage: space.RuntimeFailed, Reason: "The Space's process ended: it exited with code 1.", Tail: []string{"needs an H200"}}
	at := func(rule string, line int, values map[string]string) worker.Observation {
		return worker.Observation{Rule: rule, File: "app.py", Line: line, Values: values}
	}
	for name, row := range map[string]struct {
		found []check.Fact // by stage read
		seen  []worker.Observation
		err   error
		want  []string
	}{
		"unknown rule":            {nil, []worker.Observation{at("X999", 1, nil), at("", 1, nil)}, nil, nil},
		"unknown severity":        {nil, []worker.Observation{{Rule: "B605", File: "app.py", Line: 1, Severity: "fatal"}}, nil, []string{"app.py:1 warning B605 run"}},
		"explained by its cause":  {[]check.Fact{{Rule: "G307", File: "app.py", Line: 5}}, []worker.Observation{at("A801", 4, nil)}, start, []string{"app.py:5 error G307 read"}},
		"not explained from afar": {[]check.Fact{{Rule: "G307", File: "app.py", Line: 50}}, []worker.Observation{at("A801", 4, nil)}, start, []string{"app.py:4 error A801 run", "app.py:50 error G307 read"}},
		"found by reading":        {[]check.Fact{{Rule: "A305", File: "app.py", Line: 2}}, []worker.Observation{{Rule: "A305"}}, nil, []string{"app.py:2 error A305 read"}},
		"no ZeroGPU Space":        {[]check.Fact{{Rule: "E304", File: "app.py", Line: 2, Severity: check.Info}}, []worker.Observation{{Rule: "A305"}}, nil, []string{"app.py:2 info E304 read"}},
		"another line":            {[]check.Fact{{Rule: "F315", File: "app.py", Line: 2, Values: map[string]string{"function": "embed"}}}, []worker.Observation{at("F315", 3, map[string]string{"function": "embed"})}, nil, []string{"app.py:2 error F315 read"}},
		"an exit without a trace": {nil, nil, start, []string{". error A801 run"}},
		"a missing variable": {[]check.Fact{{Rule: "B601", File: "app.py", Line: 5, Values: map[string]string{"name": "KEY"}}},
			[]worker.Observation{at("B604", 5, map[string]string{"name": "KEY"})}, start, []string{"app.py:5 warning B601 read"}},
		"another missing variable": {[]check.Fact{{Rule: "B601", File: "app.py", Line: 5, Values: map[string]string{"name": "KEY"}}},
			[]worker.Observation{at("B604", 9, map[string]string{"name": "URL"})}, start, []string{"app.py:5 warning B601 read", "app.py:9 warning B604 run"}},
		"a module of a call": {nil, []worker.Observation{
			{Rule: "A206", File: "app.py", Line: 7, Severity: "warning", Values: map[string]string{"module": "fitz"}}, at("A206", 7, map[string]string{"module": "fitz"}),
		}, nil, []string{"app.py:7 error A206 run"}},
		"calls of one function": {nil, []worker.Observation{
			at("C406", 5, map[string]string{"function": "f", "declared": "60", "used": "1.0"}), at("C406", 5, map[string]string{"function": "f", "declared": "60", "used": "3.0"}),
			at("C406", 9, map[string]string{"function": "g", "declared": "60", "used": "31"}), at("C406", 12, map[string]string{"function": "h", "declared": "10", "used": "0"}),
			at("C406", 15, map[string]string{"function": "i", "declared": "?", "used": "0"}),
		}, nil, []string{"app.py:5 info C406 call"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r check.Report
			if err := r.Add(check.StageRead, row.found...); err != nil {
				t.Fatal(err)
			}
			o := newObservations()
			for _, one := range row.seen {
				o.add(one)
			}
			if err := o.addTo(&r, check.DurationLimits{}, row.err, true); err != nil {
				t.Fatal(err)
			}
			if got := lines(r); !slices.Equal(got, row.want) {
				t.Errorf("findings %q, want %q", got, row.want)
			}
			if name == "calls of one function" && !contains(r.Findings[0].Text, "declares 60 s and used 3.0 s at most in 2 calls") {
				t.Errorf("text %q", r.Findings[0].Text)
			}
		})
	}
}
