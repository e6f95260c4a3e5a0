package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// failures are Spaces of internal/check/testdata/spaces, in lower case, and of testdata/spaces/failures: how each fails, and the
// sentence about it on the screen.
var failures = []struct {
	space    string
	call     string // "": it fails at its start
	body     string // of the call: data, and event data
	sentence string
}{
	{"g-lambda-arg", "handler", `"data":["x"]`, "app.py:9: G312 (bucket G): run is a GPU function, and its argument 2 `callback` (a lambda) cannot be pickled: callback (a lambda). Next: "},
	{"g-select-data", "pick", `"data":[],"event_data":{"index":0,"value":"a","selected":true}`, "app.py:4: G311 (bucket G): pick is a GPU function and takes SelectData, which cannot be pickled. Next: "},
	{"h-string-duration", "run", `"data":["x"]`, "app.py:4: H402 (bucket H): the duration of run is '120s', which is not a number of seconds. Next: "},
	{"h-dynamic-wrong-signature", "run", `"data":["x",3,4]`, "app.py:7: H403 (bucket H): the duration function get_duration cannot be called with the arguments of run: get_duration() takes 2 positional arguments but 4 were given. Next: "},
	{"d-path-from-client", "size", `"data":["/etc/hostname"]`, "D701 (bucket D): a client passed a plain path or URL to a file input. Next: "},
	{"g-exception", "run", `"data":["x"]`, ""},
	{"a-health-async-gpu", "", "", "app.py:4: G307 (bucket G): greet is an async function, which @spaces.GPU does not take. Next: "},
	{"a-health-download-at-start", "", "", "app.py:5: A803 (bucket A): stabilityai/sdxl-turbo is downloaded, and there is no network. Next: "},
	{"a-health-never-ending-start", "", "", "app.py:11: A802 (bucket A): the app did not launch in time; its main thread is in the top level of the module. Next: "},
	{"a-missing-module", "", "", "app.py:4: A206 (bucket A): the module einops_not_there is not installed, and no package of requirements.txt brings it. Next: "},
	{"b-secret-keyerror", "", "", "app.py:5: B601 (bucket B): the variable HF_TOKEN is not set. Next: "},
	{"b-drift-unpinned-sdk", "", "", "app.py:9: B801 (bucket B): Textbox of gradio 6.31.0 has no argument show_copy_button. Next: "},
}

// TestFailuresAreNamed runs Spaces that fail at their start or in a call, on one host. The screen shows each traceback once, without
// the frames of gradio and spaces, and one sentence with the place, the bucket and the next step. The local visitor of a call reads
// that sentence; another visitor does not.
func TestFailuresAreNamed(t *testing.T) {
	t.Parallel()
	var dirs []string
	for _, one := range failures {
		dirs = append(dirs, failingSpace(t, one.space))
	}
	p := startProduct(t, t.TempDir(), dirs[0], append(dirs[1:], "--watch", "--tier", "unlimited", "--variable", "HF_HUB_OFFLINE=1")...)
	t.Cleanup(p.stop)
	p.awaitReady()
	for i, one := range failures {
		if one.call != "" {
			visitorReads(t, p, p.Spaces[i].URL, one.call, one.body, one.sentence)
		}
		if one.sentence != "" {
			sentence := one.space + ": " + one.sentence
			eventually(t, "the screen shows "+sentence, patience, func() bool { return strings.Contains(p.text(), sentence) })
		}
	}
	runCLI(t, p, "user", "add", "ada")
	ada := p.clientAs(p.URL, strings.TrimSpace(runCLI(t, p, "token", "create", "ada")))
	if r := ada.call("/handler", "x"); !r.Failed || len(r.Logs) != 0 {
		t.Errorf("another visitor reads %q, %+v", r.Logs, r)
	}
	p.stop()
	wantTracebacksOnce(t, p.text())
	if strings.Count(p.text(), "G312 (bucket G)") != 2 { // one for each visitor
		t.Error("a sentence is missing, or repeated")
	}
}

// failingSpace copies the app of a Space. A start may take 20 s: several Spaces start at the same time.
func failingSpace(t *testing.T, name string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	source := filepath.Join("../../internal/check/testdata/spaces", strings.ToUpper(name[:1])+name[1:])
	if name == "a-missing-module" {
		source = filepath.Join("testdata/spaces/failures", name)
	}
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "requirements.txt")); err != nil { // the environment of the tests is used
		t.Fatal(err)
	}
	readme := "---\nsdk: gradio\nstartup_duration_timeout: 30s\n"
	if name != "b-drift-unpinned-sdk" {
		readme += "sdk_version: " + gradioVersions["v6"] + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(readme+"---\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// visitorReads makes a call as a browser of this machine, and expects a warning that begins with sentence; "": none.
func visitorReads(t *testing.T, p *product, url, call, body, sentence string) {
	t.Helper()
	config := getJSON[struct {
		Dependencies []struct {
			ID      int `json:"id"`
			APIName any `json:"api_name"`
		} `json:"dependencies"`
	}](t, url+"/config")
	endpoint := -1
	for _, one := range config.Dependencies {
		if one.APIName == call {
			endpoint = one.ID
		}
	}
	post(t, url+"/gradio_api/queue/join", fmt.Sprintf(`{%s,"fn_index":%d,"session_hash":%q}`, body, endpoint, call))
	var warnings []string
	stream(t, url+"/gradio_api/queue/data?session_hash="+call, func(frame string) {
		if strings.Contains(frame, `"msg":"log"`) && strings.Contains(frame, `"title":"spacehost"`) {
			warnings = append(warnings, frame)
		}
	})
	if sentence == "" && len(warnings) == 0 {
		return
	}
	if len(warnings) != 1 || sentence == "" || !strings.Contains(warnings[0], `"log":"`+sentence) {
		t.Errorf("%s: the visitor reads %q, want %q", call, warnings, sentence)
	}
}

// wantTracebacksOnce checks the frames on the screen, and that no exception is there twice.
func wantTracebacksOnce(t *testing.T, screen string) {
	t.Helper()
	for line := range strings.Lines(screen) {
		_, frame, found := strings.Cut(line, ` |   File "`)
		if found && !strings.Contains(frame, `/app.py"`) && !strings.Contains(frame, "/lib/python3") {
			t.Errorf("a frame of a package: %s", line)
		}
		if found && strings.Contains(frame, "/site-packages/") {
			t.Errorf("a frame of a package: %s", line)
		}
	}
	for _, one := range []string{
		"b-secret-keyerror | KeyError: 'HF_TOKEN'", "a-health-async-gpu | NotImplementedError", "a-missing-module | ModuleNotFoundError", "b-drift-unpinned-sdk | TypeError",
		"g-exception | RuntimeError: shape '[2, 3]'", "g-select-data | RecursionError",
	} {
		if n := strings.Count(screen, one); n != 1 {
			t.Errorf("%q is on the screen %d times, want once", one, n)
		}
	}
	if want := "b-drift-unpinned-sdk: README.md has no sdk_version: gradio 6.31.0 is used. Write sdk_version: 6.31.0"; !strings.Contains(screen, want) {
		t.Errorf("no %q", want)
	}
}
