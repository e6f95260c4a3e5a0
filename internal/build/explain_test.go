package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recording is one case of testdata/recorded, which retake.sh records: the requirements, and the output of the tool.
type recording struct{ requirements, output string }

func readRecordings(t *testing.T, tool string) map[string]recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "recorded", tool+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]recording{}
	for _, part := range strings.Split("\n"+string(text), "\n== ")[1:] {
		name, body, _ := strings.Cut(part, " ==\n")
		var r recording
		for line := range strings.Lines(body) {
			if requirement, ok := strings.CutPrefix(line, "> "); ok {
				r.requirements += requirement
			} else {
				r.output += line
			}
		}
		all[name] = r
	}
	return all
}

const (
	networkHint = "; check the network, and HTTPS_PROXY, UV_DEFAULT_INDEX and PIP_INDEX_URL where they are set"
	pythonHint  = "; change its version, or python_version in README.md"
)

// explanations are the expected explanations by case. A case with the suffix of a tool, or of a tool and its major
// version, replaces the general one.
var explanations = map[string]string{
	"package":        `requirements.txt: no package "Nosuchpackage_XYZ" was found in the index; correct its name or version`,
	"version":        `requirements.txt: no version of "six==99.0" was found in the index; correct its version`,
	"minimum":        `requirements.txt: no version of "six>=99" was found in the index; correct its version`,
	"needs":          `requirements.txt: no package "nosuchpackage-xyz", which "needy==1.0" needs, was found in the index; change the version of needy`,
	"needs pip":      `requirements.txt: no package "nosuchpackage-xyz", which "needy" needs, was found in the index; change the version of needy`,
	"contradiction":  `requirements.txt: "six==1.16.0" and "six==1.15.0" cannot be installed together; loosen or remove one of them`,
	"indirect":       `requirements.txt: "python-dateutil==2.9.0" and "six<1.5" cannot be installed together; loosen or remove one of them`,
	"python":         `requirements.txt: "numpy==2.4.0" needs Python >=3.11, but the Space has 3.10.13` + pythonHint,
	"wheel":          `requirements.txt: "tensorflow==2.5.0" has no build for Python 3.10.13 on this machine` + pythonHint,
	"wheel pip":      `requirements.txt: no version of "tensorflow==2.5.0" was found in the index; correct its version`,
	"windows":        `requirements.txt: "pywin32==306" has no build for Python 3.10.13 on this machine` + pythonHint,
	"windows pip":    `requirements.txt: no package "pywin32" was found in the index; correct its name or version`,
	"syntax":         `requirements.txt: "foo bar == 1" is not a valid requirement; correct that line`,
	"include":        `requirements.txt names the file "more.txt", which is not in the Space; add it, or correct that line`,
	"folder":         `requirements.txt names the file "localpkg", which is not in the Space; add it, or correct that line`,
	"broken":         `requirements.txt: a package could not be built from its source; choose a version with a wheel for Python 3.10.13, or install what the log reports as missing`,
	"broken pip-26":  `requirements.txt: "broken" could not be built from its source; choose a version with a wheel for Python 3.10.13, or install what the log reports as missing`,
	"address":        `requirements.txt: 127.0.0.1:1 cannot be reached` + networkHint,
	"address pip":    `requirements.txt: 127.0.0.1 cannot be reached` + networkHint,
	"git":            `requirements.txt: git cannot reach 127.0.0.1:1 (Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server); check the network, and HTTPS_PROXY where it is set`,
	"nogit":          `requirements.txt: a package is installed from git, which this machine does not have; install git`,
	"proxy":          `requirements.txt: index.invalid cannot be reached` + networkHint,
	"proxy pip":      `requirements.txt: the package index cannot be reached` + networkHint,
	"proxy pip-26":   `requirements.txt: 127.0.0.1 cannot be reached` + networkHint,
	"nohost":         `requirements.txt: index.invalid cannot be reached` + networkHint,
	"nohost pip-23":  `requirements.txt: the package index cannot be reached` + networkHint,
	"certificate":    `the certificate of the package index is not trusted on this machine; set SSL_CERT_FILE to a file with your organisation's certificates`,
	"gradio":         `requirements.txt requires "gradio==5.49.1", but sdk_version in README.md is 6.31.0; remove that line, or change sdk_version`,
	"hub":            `requirements.txt: "huggingface_hub==0.20.0" cannot be installed together with gradio 6.31.0; loosen or remove it`,
	"sdk":            `README.md: gradio 6.999.0 was not found in the index; correct sdk_version`,
	"wheel uv-0.5.0": `requirements.txt: "tensorflow==2.5.0" has no build for Python 3.10.13 on this machine` + pythonHint,
}

func TestRecordedFailuresAreExplained(t *testing.T) {
	for _, tool := range []string{"uv-0.13.8", "uv-0.5.0", "pip-26.3", "pip-23.0.1"} {
		for name, r := range readRecordings(t, tool) {
			t.Run(tool+" "+name, func(t *testing.T) {
				kind, version, _ := strings.Cut(tool, "-")
				major, _, _ := strings.Cut(version, ".")
				expected := explanations[name]
				for _, special := range []string{name + " " + kind, name + " " + kind + "-" + major} {
					expected = orElse(explanations[special], expected)
				}
				got := explained(t, name, r)
				if got != expected || got == "" {
					t.Errorf("got  %s\nwant %s\nfrom\n%s", got, expected, r.output)
				}
			})
		}
	}
}

// explained returns the explanation of a case, without the log's path.
func explained(t *testing.T, name string, r recording) string {
	t.Helper()
	j := testJob(t, t.TempDir())
	j.python.Version = "3.10.13"
	j.spec.Gradio = "6.31.0"
	failed := step{text: "installing requirements.txt", file: requirements}
	if name == "sdk" {
		failed = step{text: "installing gradio 6.999.0 and spaces", file: "README.md"}
		j.spec.Gradio = "6.999.0"
	}
	j.inputs = inputs{Gradio: j.spec.Gradio, Files: map[string]string{requirements: r.requirements}}
	err := j.explain(failed, &toolError{tool: "tool", output: r.output, err: errors.New("exit status 1")})
	e, ok := errors.AsType[*Error](err)
	if !ok || len(e.Tail) == 0 || e.Step != failed.text || e.LogPath == "" {
		t.Errorf("explain = %+v, want an *Error with Step, LogPath and Tail", err)
	}
	return e.Problem + "; " + e.Hint
}

// testJob returns a job whose tools have not run yet.
func testJob(t *testing.T, dir string) *job {
	t.Helper()
	j, err := New(Config{Dir: dir}).newJob(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.output.Close() })
	return j
}

func TestUnknownFailureIsQuoted(t *testing.T) {
	rows := []struct{ name, output, want string }{
		{"an error line", "Resolved 3 packages\nerror: unknown reason\n  hint: wait\n", "error: unknown reason"},
		{"only a last line", "one\ntwo\n\n", "two"},
		{"nothing", "", "run tool: exit status 9"},
	}
	for _, row := range rows {
		err := testJob(t, t.TempDir()).explain(step{text: "running a step"}, &toolError{tool: "tool", output: row.output, err: errors.New("exit status 9")})
		e, _ := errors.AsType[*Error](err)
		if want := "running a step failed: " + row.want; e.Problem != want || e.Hint != "read the log for the reason" {
			t.Errorf("%s: got %q; %q, want %q", row.name, e.Problem, e.Hint, want)
		}
	}
}

func TestShortOutputIsExplained(t *testing.T) {
	rows := []struct{ name, file, output, want string }{
		{"uv, full", requirements, "error: Failed to install: x\n  cause: failed to copy: No space left on device (os error 28)", "a disk is full; free disk space"},
		{"pip, full", requirements, "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "a disk is full; free disk space"},
		{"Debian's python3 alone", "", "The virtual environment was not created successfully because ensurepip is not available.", "has no venv or no pip; install both"},
		{"no pip", requirements, "/usr/bin/python3: No module named pip", "has no venv or no pip; install both"},
		{"uv, 403", requirements, "error: Failed to fetch: `https://h.invalid/simple/x/`\n  Caused by: HTTP status client error (403 Forbidden) for url (https://h.invalid/simple/x/)", `requirements.txt: h.invalid answered "403 Forbidden"; correct that address`},
		{"pip, 404", requirements, "ERROR: HTTP error 404 while getting https://h.invalid/x.whl", `requirements.txt: h.invalid answered "404"; correct that address`},
		{"git, no network", requirements, "error: Git operation failed\n  cause: `/usr/bin/git fetch` (exit status: 128)\n  --- stderr\n  fatal: unable to access 'https://github.com/a/b/': Could not resolve host: github.com", "requirements.txt: no network: git cannot reach github.com (Could not resolve host: github.com); check the network"},
		{"git over ssh, no network", requirements, "  Running command git clone --quiet 'ssh://git@github.com/a/b'\n  ssh: Could not resolve hostname github.com: Temporary failure in name resolution\n  fatal: Could not read from remote repository.", "requirements.txt: no network: git cannot reach github.com (Temporary failure in name resolution); check the network"},
		{"git, private", requirements, "error: Git operation failed\n  --- stderr\n  fatal: could not read Username for 'https://github.com': terminal prompts disabled", "requirements.txt: git failed (fatal: could not read Username for 'https://github.com': terminal prompts disabled); correct the repository's address, or your access"},
		{"git, 404", requirements, "error: Git operation failed\n  --- stderr\n  fatal: unable to access 'https://h.invalid/x/': The requested URL returned error: 404", "requirements.txt: git failed (fatal: unable to access 'https://h.invalid/x/': The requested URL returned error: 404); correct"},
		{"UTF-16", requirements, "error: failed to read from file\n  Caused by: stream did not contain valid UTF-8", "requirements.txt is not UTF-8 text; save it as UTF-8"},
		{"import", "", "Traceback (most recent call last):\n  File \"<frozen importlib._bootstrap>\", line 1\nImportError: cannot import name 'HfFolder' from 'huggingface_hub'", "cannot be imported: ImportError: cannot import name 'HfFolder'"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			err := testJob(t, t.TempDir()).explain(step{text: "running a step", file: row.file}, &toolError{output: row.output, err: errors.New("exit status 1")})
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v\nwant ... %s", err, row.want)
			}
		})
	}
}
