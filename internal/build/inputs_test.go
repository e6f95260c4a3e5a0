package build

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEveryInputChangesKey(t *testing.T) {
	files := map[string]string{"requirements.txt": "six\n-r sub/more.txt", "sub/more.txt": "-c ../limits.txt", "limits.txt": "six<2"}
	keyWith := func(change func(in *inputs), edits map[string]string) string {
		dir := spaceDir(t, files)
		writeFiles(t, dir, edits)
		in, err := readInputs(Spec{Gradio: "6.31.0", Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		in.Constraints = []byte("six<3")
		in.Interpreter = interpreter{"/usr/bin/python3", "3.11.7"}
		change(&in)
		return in.key()
	}
	nothing := func(*inputs) {}
	keys := []string{
		keyWith(nothing, nil),
		keyWith(func(in *inputs) { in.Layout++ }, nil),
		keyWith(func(in *inputs) { in.Gradio = "" }, nil),
		keyWith(func(in *inputs) { in.Constraints = nil }, nil),
		keyWith(func(in *inputs) { in.Interpreter.Version = "3.11.8" }, nil),
		keyWith(func(in *inputs) { in.Interpreter.Path = "/usr/bin/python3.11" }, nil),
		keyWith(nothing, map[string]string{"requirements.txt": "six==1\n-r sub/more.txt"}),
		keyWith(nothing, map[string]string{"pre-requirements.txt": "pip"}),
		keyWith(nothing, map[string]string{"limits.txt": "six<1"}),
	}
	if again := keyWith(nothing, map[string]string{"app.py": "x", "packages.txt": "ffmpeg"}); again != keys[0] {
		t.Errorf("key %s changed to %s after a change of unrelated files", keys[0], again)
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(keys))); len(unique) != len(keys) {
		t.Errorf("keys %q: two inputs have the same key", keys)
	}
}

func TestUnresolvedIncludesAreLeftToInstaller(t *testing.T) {
	dir := spaceDir(t, map[string]string{"requirements.txt": "-r requirements.txt\n-r ../other.txt\n-r /etc/hostname\n-r gone.txt\n-r https://example.com/r.txt\n"})
	in, err := readInputs(Spec{Dir: dir})
	if err != nil || len(in.Files) != 1 {
		t.Errorf("readInputs = %v, %v; want only requirements.txt", in.Files, err)
	}
}

func TestRequirementsIsFolder(t *testing.T) {
	_, err := readInputs(Spec{Dir: spaceDir(t, map[string]string{"requirements.txt/x": ""})})
	if err == nil || !strings.Contains(err.Error(), "requirements.txt: not a regular file") {
		t.Errorf("got %v, want an error about the folder", err)
	}
}

func TestParseRequirements(t *testing.T) {
	got := parseRequirements("# all\nTorch==2.8.0  # cuda\n\n--extra-index-url https://example.com\n-r more.txt\nFoo_Bar.baz[extra]>=1 ; python_version > '3'\n./local\ngit+https://example.com/x#egg=y\n")
	want := []requirement{{"torch", "Torch==2.8.0"}, {"foo-bar-baz", "Foo_Bar.baz[extra]>=1"}, {"git", "git+https://example.com/x#egg=y"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPinnedGradio(t *testing.T) {
	rows := map[string]string{
		"gradio==5.49.1": "5.49.1", "six\nGradio[oauth] == 4.44.1 # x": "4.44.1",
		"gradio": "", "gradio>=5": "", "gradio==5.*": "", "gradio>=5,==5.1": "", "gradio_client==1.0": "", "": "",
	}
	for text, want := range rows {
		if got := pinned(text, "gradio"); got != want {
			t.Errorf("pinned(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestHasSomethingToInstall(t *testing.T) {
	rows := map[string]bool{"": false, "\n# none\n  # none\n": false, "six": true, "--extra-index-url x": true}
	for text, want := range rows {
		if got := (inputs{Files: map[string]string{requirements: text}}).has(requirements); got != want {
			t.Errorf("has(%q) = %t, want %t", text, got, want)
		}
	}
}

func TestConstraintsByGradio(t *testing.T) {
	rows := []struct {
		gradio, has string
		newest      release
	}{
		{"3.50.2", "fastapi==0.112.4", release{3, 12}},
		{"4.44.1", "huggingface_hub<1", release{3, 12}},
		{"5.0.0b3", "starlette<1", release{3, 12}},
		{"5.6.0", "huggingface_hub<1", release{3, 12}},
		{"5.7.0", "pydantic<2.11", release{3, 13}}, {"5.12.0", "pydantic<2.11", release{3, 13}}, {"5.24.0", "", release{}}, {"5.49.1", "", release{}}, {"6.0", "", release{}}, {"6.31.0", "", release{}}, {"", "", release{}},
	}
	for _, row := range rows {
		text, newest := constraintsFor(row.gradio)
		in := inputs{Gradio: row.gradio, Constraints: text}
		if warning := strings.Join(in.constraintWarnings(), ""); !strings.Contains(warning, row.has) || (warning == "") != (text == nil) {
			t.Errorf("warning for %q: %q, want %q in it", row.gradio, warning, row.has)
		}
		if in.Files = map[string]string{requirements: string(text)}; len(in.constraintWarnings()) != 0 {
			t.Errorf("%q: the author names all constraints, but the warning is %q", row.gradio, in.constraintWarnings())
		}
		if !strings.Contains(string(text), row.has) || (row.has == "") != (text == nil) || newest != row.newest {
			t.Errorf("constraintsFor(%q) = %q, %v; want %q in it, %v", row.gradio, text, newest, row.has, row.newest)
		}
	}
}

func TestToolEnvContainsNoSecrets(t *testing.T) {
	got := toolEnv([]string{
		"PATH=/bin", "HOME=/h", "LC_ALL=C", "https_proxy=p", "SSL_CERT_FILE=c", "PIP_INDEX_URL=i", "UV_CACHE_DIR=u", "XDG_CACHE_HOME=x",
		"HF_TOKEN=secret", "PYTHONPATH=/evil", "AWS_SECRET_ACCESS_KEY=secret", "VIRTUAL_ENV=/v", "CONDA_PREFIX=/c",
		"PIP_TARGET=/elsewhere", "UV_PYTHON=3.8", "PATHOLOGICAL=1",
	})
	want := []string{"PATH=/bin", "HOME=/h", "LC_ALL=C", "https_proxy=p", "SSL_CERT_FILE=c", "PIP_INDEX_URL=i", "UV_CACHE_DIR=u", "XDG_CACHE_HOME=x"}
	if !reflect.DeepEqual(got[:len(got)-len(fixedVariables)], want) {
		t.Errorf("toolEnv = %q, want %q and the fixedVariables ones", got, want)
	}
}
