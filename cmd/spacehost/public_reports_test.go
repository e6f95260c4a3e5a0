package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestPublicReports repeats what users of Gradio and ZeroGPU reported, and what Gradio's own tests check. Each value is
// that of stock Gradio.
func TestPublicReports(t *testing.T) {
	eachLine(t, func(t *testing.T, line string) {
		p := runOn(t, line, "testdata/spaces/public-reports")
		t.Run("an app calls itself", p.testCallsItself)
		t.Run("a literal percent sign in a path", p.testLiteralPercent)
	})
}

func (p *product) testCallsItself(t *testing.T) {
	if got := p.client().ok("/call_itself"); got != "200" {
		t.Errorf("demo.local_api_url answers %s, want 200", got)
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
