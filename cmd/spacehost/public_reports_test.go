package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"spacehost/internal/lease"
)

// TestPublicReports repeats what users of Gradio and ZeroGPU reported, and what Gradio's own tests check. Each value is
// that of stock Gradio.
func TestPublicReports(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, "testdata/spaces/public-reports")
		t.Run("an app calls itself", p.testCallsItself)
		t.Run("the state of a lifespan", p.testLifespanState)
		t.Run("a cancelled GPU generator", p.testCancelledGenerator)
		t.Run("a literal percent sign in a path", p.testLiteralPercent)
		t.Run("large results and requests", p.testLargePayloads)
	})
}

// testLargePayloads reads the streams without gradio_client, which takes minutes for such a line, also with stock
// Gradio. It stays below the 280 MB that stock Gradio was seen to deliver.
func (p *product) testLargePayloads(t *testing.T) {
	for _, row := range []struct {
		api  string
		arg  any
		want int // bytes of the stream, at least
	}{
		{"long_text", 65, 65 << 20}, {"growing_text", 80, 160 << 20}, {"length", strings.Repeat("x", 70<<20), 0},
	} {
		size, last := p.callRaw(t, row.api, row.arg)
		if size < row.want || !strings.Contains(last, `"success":true`) {
			t.Errorf("%s: %d bytes, which end with %s; want %d", row.api, size, last, row.want)
		}
	}
}

// callRaw makes a call with one value, and returns the size of its stream and what is at its end.
func (p *product) callRaw(t *testing.T, api string, arg any) (size int, last string) {
	t.Helper()
	var config struct {
		Dependencies []struct {
			ID      int    `json:"id"`
			APIName string `json:"api_name"`
		}
	}
	_, text := request(t, "GET", p.URL+"/config", "", nil)
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"data": []any{arg}, "session_hash": "raw " + api}
	for _, d := range config.Dependencies {
		if d.APIName == api {
			body["fn_index"] = d.ID
		}
	}
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := http.Post(p.api()+"/queue/join", "application/json", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	joined.Body.Close()
	if joined.StatusCode != http.StatusOK {
		t.Fatalf("%s: the join is answered with %s", api, joined.Status)
	}
	stream, err := http.Get(p.api() + "/queue/data?session_hash=" + url.QueryEscape("raw "+api))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	all, err := io.ReadAll(stream.Body)
	if err != nil {
		t.Fatalf("%s: %v after %d bytes", api, err, len(all))
	}
	return len(all), string(all[max(0, len(all)-600):])
}

func (p *product) testCallsItself(t *testing.T) {
	if got := p.client().ok("/call_itself"); got != "200" {
		t.Errorf("demo.local_api_url answers %s, want 200", got)
	}
}

// The second call would see what the first one left in its own copy.
func (p *product) testLifespanState(t *testing.T) {
	for range 2 {
		if got := p.client().ok("/greet"); got != "world" {
			t.Errorf("request.state.hello is %q, want world", got)
		}
	}
}

// A cancelled generator is closed in its worker, which stays warm. A generator that does not reach its next step within
// the grace is killed with its worker.
func (p *product) testCancelledGenerator(t *testing.T) {
	c := p.client()
	var workers []string
	for n := range 2 {
		k := c.submit("/steps", 0)
		r := c.reply(k.ch, patience)
		worker := text(r.Step)
		workers = append(workers, worker)
		c.send(map[string]any{"cancel": k.id})
		eventually(t, "the lease has ended", patience, func() bool { return len(p.leases().Ended) == n+1 })
		if l := p.leases().Ended[0]; l.State != lease.Released {
			t.Errorf("its lease ended %s, %q", l.State, l.Reason)
		}
		eventually(t, "the generator's finally has run", patience, func() bool { return strings.Count(p.text(), "finally in "+worker) == n+1 })
	}
	if workers[0] != workers[1] || strings.Count(p.text(), "the generator was closed") != 2 {
		t.Errorf("workers %v, and it printed\n%s", workers, p.text())
	}
	k := c.submit("/steps", 300)
	c.reply(k.ch, patience)
	c.send(map[string]any{"cancel": k.id})
	p.advance("9s", "9s")
	if open := p.leases().Open; len(open) != 1 {
		t.Errorf("during the grace: %+v", open)
	}
	p.advance("2s", "11s")
	eventually(t, "the stuck generator is ended", patience, func() bool { return len(p.leases().Ended) == 3 })
	if l := p.leases().Ended[0]; l.State != lease.Revoked || l.Reason != "cancelled" {
		t.Errorf("its lease ended %s, %q", l.State, l.Reason)
	}
}

// The second request arrives on the same connection, after a request with a body.
func (p *product) testLiteralPercent(t *testing.T) {
	name := p.client().ok("/percent")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	reader := bufio.NewReader(conn)
	for _, head := range []string{"GET %s HTTP/1.1\r\n", "HEAD %s HTTP/1.1\r\nContent-Length: 4\r\n", "GET %s HTTP/1.1\r\n"} {
		body := ""
		if strings.Contains(head, "Content-Length") {
			body = "100%"
		}
		path := strings.TrimPrefix(p.api(), p.URL) + "/file=" + name
		fmt.Fprintf(conn, head+"Host: %s\r\n\r\n%s", path, strings.TrimPrefix(p.URL, "http://"), body)
		r, err := http.ReadResponse(reader, &http.Request{Method: strings.Fields(head)[0]})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK || string(text) != "all of it" && r.Request.Method != "HEAD" {
			t.Errorf("%s: %s %q %v", head, r.Status, text, err)
		}
	}
}

// TestFastAPIAlone: an app without Gradio is RUNNING once its server listens, and its routes answer. With spaces
// 0.51.3 a GPU call of a route is charged to the Space.
func TestFastAPIAlone(t *testing.T) {
	t.Parallel()
	p := runProduct(t, "testdata/spaces/fastapi-alone")
	if s := p.health().Spaces[0]; s.Stage != "RUNNING" {
		t.Errorf("its stage is %s", s.Stage)
	}
	if status, text := request(t, "GET", p.URL+"/", "", nil); status != http.StatusOK || text != `{"hidden":[]}` {
		t.Errorf("/: %d %s", status, text)
	}
	if status, text := request(t, "GET", p.URL+"/work/21", "", nil); status != http.StatusOK || !strings.HasPrefix(text, `{"double":42,`) {
		t.Errorf("/work/21: %d %s", status, text)
	}
	ended := p.leases().Ended
	if len(ended) != 1 || ended[0].State != lease.Released || ended[0].Identity != "space:fastapi-alone" {
		t.Errorf("its leases: %+v", ended)
	}
	if status, text := request(t, "GET", p.URL+"/nothing", "", nil); status != http.StatusNotFound || text != `{"detail":"Not Found"}` {
		t.Errorf("/nothing: %d %s", status, text)
	}
}
