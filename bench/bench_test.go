package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/build/buildtest"
)

// engineRows are the rows that each test run measures. The others start many Spaces, or draw 100,000 leases in Chromium.
const engineRows = "start,noop-1,noop-16,steps,gpu,config,static,file,upload,page,waiting-40"

// TestShortRunHasEveryNumber checks that each row is measured and answered right, never its speed. Without SPACEHOST_BENCH (make
// bench-short) these are engineRows.
func TestShortRunHasEveryNumber(t *testing.T) {
	var args []string
	var chosen options
	if os.Getenv("SPACEHOST_BENCH") == "" {
		t.Log("SKIPPED: all rows but " + engineRows + "; run make bench-short to include them")
		args, chosen.only = []string{"--only", engineRows}, strings.Split(engineRows, ",")
	}
	r, _ := shortRun(t, args...)
	for _, record := range r.Rounds {
		if record.Error != "" && record.Target != stock { // calls that plain Gradio drops are not an error of spacehost
			t.Errorf("%s, %s: %s", record.Target, record.Step, record.Error)
		}
	}
	for _, s := range allSteps(true) {
		if !chosen.wants(s) {
			continue
		}
		if s.name == "page" && !r.Machine.HasBrowser {
			if os.Getenv("SPACEHOST_REQUIRE_ALL") != "" {
				t.Error("Chromium is needed and not installed")
			}
			t.Log("SKIPPED: Chromium is not installed; the first page load was not measured")
			continue
		}
		for _, l := range s.lines {
			for _, target := range []string{stock, ours} {
				if _, ok := r.median(target, s.name, l.key); !ok && !(l.oursOnly && target == stock) {
					t.Errorf("no number for %s of %s", l.text, target)
				}
			}
			for _, prefix := range []string{"plain-", "", "whole-"} {
				if _, ok := r.median(engine, boundStep, prefix+l.share); !ok && l.share != "" {
					t.Errorf("no upper bound %s for %s", prefix, l.text)
				}
			}
		}
	}
	if host, ok := r.median(ours, "start", "host_ms"); !ok || host <= 0 {
		t.Errorf("start of the host: %v, %v", host, ok)
	}
	for _, key := range []string{"dropped", "disorder"} {
		if n, _ := r.median(ours, "waiting-40", key); n != 0 {
			t.Errorf("of 40 visitors %v were %s", n, key)
		}
	}
}

// shortRun runs the program with --short and further arguments. It returns the result and the text of the progress.
func shortRun(t *testing.T, args ...string) (r report, progress string) {
	t.Helper()
	if err := buildtest.LookAtSources(".."); err != nil {
		t.Fatal(err)
	}
	o, err := parse(append(args, "--short"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var table, text bytes.Buffer
	r, err = run(t.Context(), o, &table, &text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	t.Logf("\n%s", table.String())
	return r, text.String()
}

// TestWrongAnswersAreCounted: a Space that returns wrong answers must not look fast.
func TestWrongAnswersAreCounted(t *testing.T) {
	for _, c := range []struct{ name, join, stream, want string }{
		{"right", "200", completed(`["%s"]`, true) + closeStream, ""},
		{"another output", "200", completed(`["%sx"]`, true) + closeStream, "want"},
		{"no success", "200", completed(`["%s"]`, false) + closeStream, "want"},
		{"no answer", "200", closeStream, "want"},
		{"broken off", "200", completed(`["%s"]`, true), "broke off"},
		{"dropped", "200", "data: {\"msg\":\"unexpected_error\",\"event_id\":null}\n\n", "unexpected_error"},
		{"refused", "503", "", "503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var input string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/config":
					fmt.Fprint(w, `{"dependencies":[{"id":0,"api_name":"noop"}]}`)
				case r.Method == http.MethodPost && c.join != "200":
					w.WriteHeader(http.StatusServiceUnavailable)
				case r.Method == http.MethodPost:
					body, _ := io.ReadAll(r.Body) // our own client sends it
					_, after, _ := strings.Cut(string(body), `"data":["`)
					input, _, _ = strings.Cut(after, `"`)
				default:
					fmt.Fprint(w, strings.ReplaceAll(c.stream, "%s", input))
				}
			}))
			defer server.Close()
			client, err := newClient(t.Context(), server.URL, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer client.close()
			r := events(t.Context(), &target{client: client}, "noop", 1, time.Millisecond)
			if c.want == "" {
				if r.err != nil || len(r.took) == 0 {
					t.Errorf("%d answers, %v", len(r.took), r.err)
				}
				return
			}
			var wrong *wrongError
			if !errors.As(r.err, &wrong) || wrong.count == 0 || !strings.Contains(r.err.Error(), c.want) || len(r.took) != 0 {
				t.Errorf("%d answers, error %v, want %q", len(r.took), r.err, c.want)
			}
		})
	}
}

const closeStream = "data: {\"msg\":\"close_stream\",\"event_id\":null}\n\n"

func completed(data string, success bool) string {
	return fmt.Sprintf("data: {\"msg\":\"process_completed\",\"output\":{\"data\":%s},\"success\":%v}\n\n", data, success)
}

// TestCountVisitors: dropped, answered in order, overtaken.
func TestCountVisitors(t *testing.T) {
	c := &crowd{visitors: []*visitor{{number: 0, place: 0}, {number: 1, place: 2}, {number: 2, place: 1}, {number: 3, err: errors.New("gone")}}}
	if dropped, disorder, first := c.count(5); dropped != 2 || disorder != 1 || first == nil {
		t.Errorf("dropped %d, out of order %d, %v; want 2, 1 and a reason", dropped, disorder, first)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--only nonsense", "choose from start, noop-1"},
		{"--isolation --only noop-1", "choose from start, noop, gpu"},
		{"--first", "0 wheels of this machine in dist; build one with `make wheel`"},
		{"--first --wheel /no/such.whl", "build it with `make wheel`"},
		{"--first --only noop-1", "remove --isolation, --only"},
		{"--wheel some.whl", "--wheel needs --first"},
		{"--rounds 101", "between 1 and 100"},
		{"--hold -1s", "--hold"},
		{"fast", `unexpected argument "fast"`},
		{"--speed", "-speed"},
		{"--spacehost /no/such/program", "make build"},
		{"--json /no/such/folder/rounds.json", "name a writable file"},
	} {
		var stderr bytes.Buffer
		if code := Main(strings.Fields(c.args), io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, stderr %q", c.args, code, stderr.String())
		}
	}
}

// TestCtrlCStopsProcesses interrupts the run while spacehost is measured.
func TestCtrlCStopsProcesses(t *testing.T) {
	scratch, err := os.MkdirTemp("", "b") // t.TempDir's path is too long for the host's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	t.Setenv("TMPDIR", scratch)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o, err := parse([]string{"--only", "start,noop-1", "--hold", "1ms"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.size = short
	var table bytes.Buffer
	progress := &tripwire{at: "spacehost      start", act: cancel}
	r, err := run(ctx, o, &table, progress)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("run: %v\n%s", err, progress.output.String())
	}
	if _, ok := r.median(stock, "noop-1", "per_s"); !ok || !strings.Contains(table.String(), "no-op, 1 session") {
		t.Errorf("the values measured before Ctrl-C are not shown:\n%s", table.String())
	}
	if left := mentioning(scratch); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("files left behind: %v %v", left, err)
	}
}

// tripwire calls act once a text has been written.
type tripwire struct {
	output bytes.Buffer
	at     string
	act    func()
}

func (w *tripwire) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.at) {
		w.act()
	}
	return w.output.Write(p)
}

// mentioning lists the processes whose environment contains a folder. The environment of this process was set before.
func mentioning(folder string) (found []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ") // a constant pattern
	for _, path := range paths {
		if environ, _ := os.ReadFile(path); bytes.Contains(environ, []byte(folder)) { // exited or not readable: ""
			found = append(found, path)
		}
	}
	return found
}
