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

// TestEveryGradioLine runs one Space on each line of Gradio. It covers GPU calls by that line's gradio_client and by the newest,
// an app that calls itself, and MCP tools, which Gradio implements with such calls.
func TestEveryGradioLine(t *testing.T) {
	t.Parallel()
	for line := range gradioVersions {
		version := gradioOf(t, line)
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/lines", "--tier", "unlimited", "--python", environmentOf(t, line))
			if health := p.health().Spaces[0]; !health.Native || health.Gradio != version || health.Why != "" {
				t.Errorf("health: %+v, want gradio %s, native", health, version)
			}
			for _, of := range []string{line, "v6"} {
				t.Run("gradio_client of "+of, func(t *testing.T) { callLine(t, p, environmentOf(t, of), version) })
			}
			t.Run("a closed page", func(t *testing.T) { leaveLine(t, p, line) })
			t.Run("a streaming input", func(t *testing.T) { streamLine(t, p, line) })
			t.Run("MCP", func(t *testing.T) { callTool(t, p, line) })
		})
	}
}

// callLine makes calls with the gradio_client of that interpreter.
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

// leaveLine checks that the app is notified when a visitor's page is closed (Blocks.unload).
func leaveLine(t *testing.T, p *product, line string) {
	t.Helper()
	prefix := "/gradio_api"
	if line == "v4" {
		prefix = ""
	}
	session := 0
	eventually(t, "Blocks.unload runs", 3*patience, func() bool { // retried until the Space's own heartbeat is open
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
			status, body := request(t, http.MethodPost, p.URL+prefix+"/queue/join", fmt.Sprintf(`{"data":[null],"fn_index":4,"session_hash":%q}`, name), nil)
			_, stream := request(t, http.MethodGet, p.URL+prefix+"/queue/data?session_hash="+name, "", nil)
			if status != http.StatusOK || !strings.Contains(stream, `"success":true`) {
				t.Fatalf("%d %s: %s", status, body, stream)
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

// streamLine checks that a camera's chunks reach the running event until the stream is closed or its time is over. Foreign file
// paths are refused there, too.
func streamLine(t *testing.T, p *product, line string) {
	t.Helper()
	if line == "v4" {
		t.Skip("Gradio 4 has no streaming inputs")
	}
	api := p.URL + "/gradio_api"
	session := ""
	picture := func(path string) string {
		return fmt.Sprintf(`{"data":[{"path":%q,"meta":{"_type":"gradio.FileData"}},null],"fn_index":6,"session_hash":%q}`, path, session)
	}
	path := uploadPicture(t, api)
	for _, end := range []string{"closed", "over"} {
		session = "camera-" + end
		streamOnce(t, api, session, end, picture(path), picture("/etc/passwd"))
	}
}

// streamOnce sends chunks to one event. With the end "closed" it closes the stream; with "over" the event reaches its time limit.
func streamOnce(t *testing.T, api, session, end, chunk, forbidden string) {
	t.Helper()
	_, joined := request(t, http.MethodPost, api+"/queue/join", chunk, nil)
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
	lines := bufio.NewScanner(answer.Body)
	await := func(word string) string {
		for lines.Scan() {
			if strings.Contains(lines.Text(), word) {
				return lines.Text()
			}
		}
		t.Fatalf("%s: the stream ended without %s: %v", end, word, lines.Err())
		return ""
	}
	for number := range 3 {
		await(fmt.Sprintf(`"picture %d"`, number))
		if status, body := request(t, http.MethodPost, api+"/stream/"+event.ID, chunk, nil); status != http.StatusOK {
			t.Fatalf("picture %d: %d %s", number, status, body)
		}
	}
	if status, body := request(t, http.MethodPost, api+"/stream/"+event.ID, forbidden, nil); status != http.StatusForbidden {
		t.Errorf("a chunk with a foreign file path: got %d %s, want 403", status, body)
	}
	if end == "closed" {
		if status, body := request(t, http.MethodPost, api+"/stream/"+event.ID+"/close", "{}", nil); status != http.StatusOK {
			t.Errorf("close: %d %s", status, body)
		}
	}
	if last := await("process_completed"); !strings.Contains(last, `"success":true`) {
		t.Errorf("%s: %s", end, last)
	}
	await("close_stream")
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

// awaitCharge waits until a call is charged: its Lease is settled a moment after its response.
func (p *product) awaitCharge(before float64) {
	p.t.Helper()
	eventually(p.t, "the visitor is charged", patience, func() bool { return p.charged() > before })
}

// charged returns the seconds charged to the local visitor so far.
func (p *product) charged() (seconds float64) {
	p.t.Helper()
	for _, one := range p.leases().Ended {
		if one.Identity == "local" {
			seconds += one.ChargedSeconds
		}
	}
	return seconds
}

// TestOlderReleasesStart starts older releases of a line, which no other test uses. Only `make fidelity` runs it, because it may
// have to build their environments.
func TestOlderReleasesStart(t *testing.T) {
	if !isFidelity() {
		t.Skip("SKIPPED: Gradio 5.12 and 6.0 were not started; run make fidelity to include them")
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

// TestUnknownGradioIsPassedThrough runs a Gradio with changed internals. Gradio's own queue runs the events, and the caller pays
// as usual.
func TestUnknownGradioIsPassedThrough(t *testing.T) {
	t.Parallel()
	for _, line := range allLines("v4", "v6") { // without and with an API prefix
		version := gradioOf(t, line)
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/lines", "--python", environmentOf(t, line), "--variable", "CHANGED_INSIDE=1", "--tier", "pro")
			const reason = "it has no Queue.update_intervals"
			if health := p.health().Spaces[0]; health.Native || health.Gradio != version || health.Why != reason {
				t.Errorf("health: %+v, want gradio %s, not native: %s", health, version, reason)
			}
			if warning := "WARNING: spacehost does not know the internals of gradio " + version + " (" + reason + ")"; !strings.Contains(p.text(), warning) {
				t.Errorf("the output lacks %q", warning)
			}
			if !strings.Contains(p.log(), "its own queue is used") {
				t.Error("the log does not report that Gradio's own queue is used")
			}
			callLine(t, p, environmentOf(t, line), version)
			if left := p.hubQuota(); left.Current >= left.Base {
				t.Errorf("the visitor's quota is untouched: %+v", left)
			}
			wantLocalPayer(t, p)
			c := p.client()
			if r := c.call("/too_long"); !strings.Contains(r.Err, "(4000s) is larger than the maximum allowed") {
				t.Errorf("/too_long: %+v", r)
			}
		})
	}
}

// wantLocalPayer checks that the local visitor paid for every Lease, and not the Space.
func wantLocalPayer(t *testing.T, p *product) {
	t.Helper()
	for _, one := range p.leases().Ended {
		if one.Identity != "local" {
			t.Errorf("%s paid for %+v, want local", one.Identity, one)
		}
	}
}

// callTool calls a GPU function with the real MCP client. ada pays for it, although Gradio makes the call itself. Gradio 4 has no
// MCP.
func callTool(t *testing.T, p *product, line string) {
	if line == "v4" {
		t.Skip("Gradio 4 has no MCP")
	}
	runCLI(t, p, "user", "add", "ada", "--tier", "pro")
	token := strings.TrimSpace(runCLI(t, p, "token", "create", "ada"))
	for query, tools := range map[string]int{"": 5, "?tools=greet": 1, "?tools=lines_greet": 1} { // the last as the page writes it
		outcome := callMCP(t, line, p.URL+"/gradio_api/mcp/"+query, token)
		if outcome.Failed || !strings.HasPrefix(outcome.Text, "Hello tool, from GPU-") || len(outcome.Tools) != tools {
			t.Errorf("%q: got %+v, want %d tools", query, outcome, tools)
		}
	}
	eventually(t, "ada is charged", patience, func() bool {
		last := p.leases().Ended
		return len(last) > 0 && last[0].Identity == "user:ada" && last[0].ChargedSeconds > 0
	})
}

// mcpOutcome is the output of mcp_client.py.
type mcpOutcome struct {
	Tools  []string
	Failed bool
	Text   string
}

// callMCP calls the tool greet with the real MCP client.
func callMCP(t *testing.T, line, url, token string) (outcome mcpOutcome) {
	t.Helper()
	cmd := exec.Command(environmentOf(t, line), filepath.Join("testdata", "clients", "mcp_client.py"), url, "greet", `{"name": "tool"}`, token)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if bad := json.Unmarshal(out, &outcome); err != nil || bad != nil {
		t.Fatalf("%v, %v: %s", err, bad, out)
	}
	return outcome
}

// TestTwoMountedApps runs two apps in one process. Each has its own queue, so functions with the same fn_index are not mixed up,
// and visitors pay in both.
func TestTwoMountedApps(t *testing.T) {
	t.Parallel()
	for _, line := range allLines("v4", "v6") {
		t.Run(line, func(t *testing.T) {
			p := runProduct(t, "testdata/spaces/mounts", "--tier", "pro", "--python", environmentOf(t, line))
			for _, name := range []string{"one", "two"} {
				before := p.charged()
				if got := p.clientIn(environmentOf(t, line), p.URL+"/"+name, "").ok("/greet", "you"); !strings.HasPrefix(got, name+" greets you from GPU-") {
					t.Errorf("%s: %q", name, got)
				}
				p.awaitCharge(before)
			}
			wantLocalPayer(t, p)
		})
	}
}
