package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEveryLineServes runs one Space on each line of Gradio: GPU calls by the gradio_client of that time and by
// the newest, an app that calls itself, and MCP tools, which do so too.
func TestEveryLineServes(t *testing.T) {
	for line, version := range gradios {
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/lines", "--tier", "unlimited", "--python", environmentOf(t, line))
			if health := p.health().Spaces[0]; !health.Native || health.Gradio != version || health.Why != "" {
				t.Errorf("health: %+v, want gradio %s, native", health, version)
			}
			for _, of := range []string{line, "v6"} {
				t.Run("gradio_client of "+of, func(t *testing.T) { callLine(t, p, environmentOf(t, of), version) })
			}
			t.Run("a visitor who leaves", func(t *testing.T) { leaveLine(t, p, line) })
			t.Run("an input that streams", func(t *testing.T) { streamLine(t, p, line) })
			t.Run("MCP", func(t *testing.T) { callTool(t, p, line) })
		})
	}
}

// callLine calls with the gradio_client of that interpreter.
func callLine(t *testing.T, p *product, python, version string) {
	t.Helper()
	c := p.clientIn(python, p.URL, "")
	before := p.charged()
	r := c.call("/greet", "line")
	if got := text(r.Value); !strings.HasPrefix(got, "Hello line, from GPU-") || !strings.HasSuffix(got, "gradio "+version) {
		t.Errorf("/greet: %q (%s)", got, r.Err)
	}
	p.awaitCharge(before)
	if got := c.ok("/ask_myself", "me"); got != "you said me" {
		t.Errorf("/ask_myself: %q", got)
	}
}

// leaveLine: the app hears that a visitor's page has gone (Blocks.unload).
func leaveLine(t *testing.T, p *product, line string) {
	t.Helper()
	prefix := "/gradio_api"
	if line == "v4" {
		prefix = ""
	}
	session := 0
	eventually(t, "the app hears of it", 3*patience, func() bool { // once the Space's own heartbeat was open
		session++
		name := fmt.Sprintf("leaver-%d", session)
		ctx, hangUp := context.WithCancel(t.Context())
		defer hangUp()
		page, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+prefix+"/heartbeat/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		open, err := http.DefaultClient.Do(page)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Body.Close()
		for calls := 1; calls <= 2; calls++ {
			status, said := request(t, http.MethodPost, p.URL+prefix+"/queue/join", fmt.Sprintf(`{"data":[null],"fn_index":4,"session_hash":%q}`, name), nil)
			_, stream := request(t, http.MethodGet, p.URL+prefix+"/queue/data?session_hash="+name, "", nil)
			if status != http.StatusOK || !strings.Contains(stream, `"success":true`) {
				t.Fatalf("%d %s: %s", status, said, stream)
			}
		}
		hangUp()
		for range 300 {
			if strings.Contains(p.text(), name+" has left") {
				return true
			}
			<-time.After(100 * time.Millisecond)
		}
		return false
	})
}

// streamLine: what a camera sends goes to the event that runs, until it is closed or its time is over; no file comes in by
// that way either.
func streamLine(t *testing.T, p *product, line string) {
	t.Helper()
	if line == "v4" {
		t.Skip("Gradio 4 has no inputs that stream")
	}
	api := p.URL + "/gradio_api"
	session := ""
	picture := func(path string) string {
		return fmt.Sprintf(`{"data":[{"path":%q,"meta":{"_type":"gradio.FileData"}},null],"fn_index":6,"session_hash":%q}`, path, session)
	}
	path := uploadPicture(t, api)
	for _, end := range []string{"closed", "over"} {
		session = "camera-" + end
		mine := picture(path)
		_, joined := request(t, http.MethodPost, api+"/queue/join", mine, nil)
		var event struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal([]byte(joined), &event); err != nil || event.ID == "" {
			t.Fatalf("join: %s", joined)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api+"/queue/data?session_hash="+session, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		heard := bufio.NewScanner(answer.Body)
		await := func(word string) string {
			for heard.Scan() {
				if strings.Contains(heard.Text(), word) {
					return heard.Text()
				}
			}
			t.Fatalf("%s: the stream ended without %s: %v", end, word, heard.Err())
			return ""
		}
		for number := range 3 {
			await(fmt.Sprintf(`"picture %d"`, number))
			if status, said := request(t, http.MethodPost, api+"/stream/"+event.ID, mine, nil); status != http.StatusOK {
				t.Fatalf("picture %d: %d %s", number, status, said)
			}
		}
		if status, said := request(t, http.MethodPost, api+"/stream/"+event.ID, picture("/etc/passwd"), nil); status != http.StatusForbidden {
			t.Errorf("another file: %d %s", status, said)
		}
		if end == "closed" {
			if status, said := request(t, http.MethodPost, api+"/stream/"+event.ID+"/close", "{}", nil); status != http.StatusOK {
				t.Errorf("close: %d %s", status, said)
			}
		}
		if last := await("process_completed"); !strings.Contains(last, `"success":true`) {
			t.Errorf("%s: %s", end, last)
		}
		await("close_stream")
	}
}

func uploadPicture(t *testing.T, api string) string {
	t.Helper()
	answer, err := http.Post(api+"/upload", "multipart/form-data; boundary=B", strings.NewReader(
		"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.png\"\r\n\r\n"+pictureOf(t)+"\r\n--B--\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var paths []string
	if err := json.NewDecoder(answer.Body).Decode(&paths); err != nil || len(paths) != 1 {
		t.Fatalf("upload: %s %v", answer.Status, err)
	}
	return paths[0]
}

// awaitCharge waits until a call has paid: its Lease is settled a moment after its answer.
func (p *product) awaitCharge(before float64) {
	p.t.Helper()
	eventually(p.t, "the visitor pays", patience, func() bool { return p.charged() > before })
}

// charged is what the local visitor has paid for Leases so far.
func (p *product) charged() (seconds float64) {
	p.t.Helper()
	for _, one := range p.leases().Ended {
		if one.Identity == "local" {
			seconds += one.ChargedSeconds
		}
	}
	return seconds
}

// TestOlderReleasesStart: releases inside a line, which nothing else is tried with. `make fidelity` runs it: their
// environments are made anew where they are not kept.
func TestOlderReleasesStart(t *testing.T) {
	if os.Getenv("SPACEHOST_FIDELITY") == "" {
		t.Skip("SKIPPED: Gradio 5.12 and 6.0 were not started; make fidelity does")
	}
	for _, version := range []string{"5.12.0", "6.0.0"} {
		t.Run(version, func(t *testing.T) {
			python, err := buildEnvironment(version)
			if err != nil {
				t.Fatal(err)
			}
			p := runProduct(t, "testdata/spaces/lines", "--tier", "unlimited", "--python", python)
			if health := p.health().Spaces[0]; !health.Native || health.Gradio != version {
				t.Errorf("health: %+v, want gradio %s, native", health, version)
			}
			callLine(t, p, python, version)
			callLine(t, p, environment(t), version)
		})
	}
}

// A Gradio whose inside has changed: its own queue does the work, and whoever calls pays as always.
func TestUnknownGradioIsPassedThrough(t *testing.T) {
	for _, line := range []string{"v4", "v6"} { // without and with a prefix of the API
		version := gradios[line]
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/lines", "--python", environmentOf(t, line), "--variable", "CHANGED_INSIDE=1", "--tier", "pro")
			const reason = "it has no Queue.update_intervals"
			if health := p.health().Spaces[0]; health.Native || health.Gradio != version || health.Why != reason {
				t.Errorf("health: %+v, want gradio %s, not native: %s", health, version, reason)
			}
			if said := "WARNING: the inside of gradio " + version + " is not known to spacehost (" + reason + ")"; !strings.Contains(p.text(), said) {
				t.Errorf("the screen lacks %q", said)
			}
			if !strings.Contains(p.log(), "its own queue is used") {
				t.Error("the log lacks it")
			}
			callLine(t, p, environmentOf(t, line), version)
			if left := p.hubQuota(); left.Current >= left.Base {
				t.Errorf("the visitor's quota is untouched: %+v", left)
			}
			payNobodyElse(t, p)
			c := p.client()
			if r := c.call("/too_long"); !strings.Contains(r.Err, "(4000s) is larger than the maximum allowed") {
				t.Errorf("/too_long: %+v", r)
			}
		})
	}
}

// payNobodyElse: every Lease is the visitor's, none the Space's own.
func payNobodyElse(t *testing.T, p *product) {
	t.Helper()
	for _, one := range p.leases().Ended {
		if one.Identity != "local" {
			t.Errorf("%s pays for %+v", one.Identity, one)
		}
	}
}

// callTool has the real MCP client call a function that takes a GPU, for which ada pays, though Gradio makes the
// call itself. Gradio 4 has no MCP.
func callTool(t *testing.T, p *product, line string) {
	if line == "v4" {
		t.Skip("Gradio 4 has no MCP")
	}
	runCLI(t, p, "user", "add", "ada", "--tier", "pro")
	token := strings.TrimSpace(runCLI(t, p, "token", "create", "ada"))
	for query, tools := range map[string]int{"": 5, "?tools=greet": 1, "?tools=lines_greet": 1} { // the last as the page writes it
		said := callMCP(t, line, p.URL+"/gradio_api/mcp/"+query, token)
		if said.Failed || !strings.HasPrefix(said.Text, "Hello tool, from GPU-") || len(said.Tools) != tools {
			t.Errorf("%q: got %+v, want %d tools", query, said, tools)
		}
	}
	eventually(t, "ada pays", patience, func() bool {
		last := p.leases().Ended
		return len(last) > 0 && last[0].Identity == "user:ada" && last[0].ChargedSeconds > 0
	})
}

// mcpAnswer is what mcp_client.py prints.
type mcpAnswer struct {
	Tools  []string
	Failed bool
	Text   string
}

// callMCP calls the tool greet.
func callMCP(t *testing.T, line, url, token string) (said mcpAnswer) {
	t.Helper()
	cmd := exec.Command(environmentOf(t, line), filepath.Join("testdata", "clients", "mcp_client.py"), url, "greet", `{"name": "tool"}`, token)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if bad := json.Unmarshal(out, &said); err != nil || bad != nil {
		t.Fatalf("%v, %v: %s", err, bad, out)
	}
	return said
}

// Two apps in one process have a queue each: functions of the same number do not meet, and visitors pay in both.
func TestTwoMountedApps(t *testing.T) {
	for _, line := range []string{"v4", "v6"} {
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/mounts", "--tier", "pro", "--python", environmentOf(t, line))
			for _, name := range []string{"one", "two"} {
				before := p.charged()
				if got := p.clientIn(environmentOf(t, line), p.URL+"/"+name, "").ok("/greet", "you"); !strings.HasPrefix(got, name+" greets you from GPU-") {
					t.Errorf("%s: %q", name, got)
				}
				p.awaitCharge(before)
			}
			payNobodyElse(t, p)
		})
	}
}
