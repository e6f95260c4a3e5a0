package build

import (
	"errors"
	"strings"
	"testing"
)

// TestExplainMissing covers builds from source that lack a header, a program or a module.
func TestExplainMissing(t *testing.T) {
	const failed = "  × Failed to build `broken==1.0`\n  ├─▶ The build backend returned an error\n"
	for _, row := range []struct {
		output string
		want   Missing
		hint   string
	}{
		{"src/pyaudio/device_api.c:9:10: fatal error: portaudio.h: No such file or directory\n", Missing{Name: "portaudio.h", Package: "portaudio19-dev"}, "add portaudio19-dev to packages.txt"},
		{"x.cpp:1:10: fatal error: GL/gl.h: No such file or directory\n", Missing{Name: "GL/gl.h", Package: "libgl1-mesa-dev"}, "add libgl1-mesa-dev to packages.txt"},
		{"x.cpp:1:10: fatal error: deep/inside/zlib.h: No such file or directory\n", Missing{Name: "deep/inside/zlib.h", Package: "zlib1g-dev"}, "zlib1g-dev"},
		{"x.c:1:10: fatal error: unknown_thing.h: No such file or directory\n", Missing{Name: "unknown_thing.h"}, "add the Debian package with this file"},
		{"x.c:1:10: fatal error: 'png.h' file not found\n", Missing{Name: "png.h", Package: "libpng-dev"}, "libpng-dev"},
		{"Error: pg_config executable not found.\n", Missing{Name: "pg_config", Package: "libpq-dev"}, "libpq-dev"},
		{"RuntimeError: CMake must be installed to build this package\n", Missing{Name: "CMake", Package: "cmake"}, "add cmake to packages.txt"},
		{"FileNotFoundError: [Errno 2] No such file or directory: 'swig'\n", Missing{Name: "swig", Package: "swig"}, "add swig to packages.txt"},
		{"FileNotFoundError: [Errno 2] No such file or directory: 'README'\n", Missing{}, "choose a version with a wheel"},
		{"ModuleNotFoundError: No module named 'torch'\n", Missing{Name: "torch", Module: true}, "its setup.py imports torch"},
		{"some other error\n", Missing{}, "choose a version with a wheel"},
	} {
		f := failure{raw: failed + row.output, flat: flatten(failed + row.output), text: "gradio\n\nbroken==1.0  # here\n", step: step{file: "requirements.txt"}, python: "3.12.12", err: errors.New("exit status 1")}
		f.lines = parseRequirements(f.text)
		problem, hint := f.reason()
		got, _ := f.missing()
		if got != row.want || !strings.Contains(hint, row.hint) {
			t.Errorf("%q: %+v, %q; want %+v and %q", row.output, got, hint, row.want, row.hint)
		}
		if requirement, line := f.line(problem); requirement != "broken==1.0" || line != 3 {
			t.Errorf("%q: requirement %q in line %d of %q, want broken==1.0 in line 3", row.output, requirement, line, problem)
		}
	}
}
