package gradioapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

// TestResponseBeforeTheEndOfTheRequest: a Space may answer before it has the whole body. Without full duplex, net/http then closes
// the visitor's body while the transport reads it, and the response is cut (golang/go#40747).
func TestResponseBeforeTheEndOfTheRequest(t *testing.T) {
	h := newHost(t)
	h.space.route("/echo", func(w http.ResponseWriter, r *http.Request) {
		control, half := http.NewResponseController(w), make([]byte, 5)
		_ = control.EnableFullDuplex() // HTTP/1 has it
		for range 2 {
			if _, err := io.ReadFull(r.Body, half); err != nil {
				t.Errorf("the Space reads: %v", err)
			}
			fmt.Fprintf(w, "%s\n", half)
			_ = control.Flush() // a failure shows in the response
		}
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitLimit)) // reached only by a failure
	fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nfirst")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewReader(answer.Body)
	for _, want := range []string{"first\n", "later\n"} {
		if got, err := lines.ReadString('\n'); err != nil || got != want {
			t.Fatalf("got %q (%v), want %q", got, err, want)
		}
		fmt.Fprint(conn, "later")
	}
}

// TestUnreadBody: a request whose body the Space does not read is answered, as are later ones of the same client.
func TestUnreadBody(t *testing.T) {
	h, down := newHost(t), newHost(t)
	h.space.route("/early", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	down.space.Close()
	for range 30 {
		if got := h.post("/early", "0123456789"); got.status != http.StatusNotFound {
			t.Fatalf("got %d %s (%v)", got.status, got.body, got.err)
		}
	}
	for range 2 {
		if got := down.post("/early", "0123456789"); got.status != http.StatusServiceUnavailable {
			t.Fatalf("of a Space that is unreachable: got %d %s (%v)", got.status, got.body, got.err)
		}
	}
}

// TestReadBodyKeepsTheConnection: a client sends further requests over the same connection.
func TestReadBodyKeepsTheConnection(t *testing.T) {
	h := newHost(t)
	h.space.route("/length", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // the length shows a failure
		fmt.Fprint(w, n)
	})
	for i := range 10 {
		var body io.Reader = strings.NewReader("0123456789")
		if i%2 == 1 {
			body = io.MultiReader(body) // its length is not known
		}
		r := h.request(t.Context(), http.MethodPost, "/length", body)
		used := false
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { used = info.Reused }}))
		if got := h.send(r); got.body != "10" || used != (i > 0) {
			t.Fatalf("request %d: got %d %s (%v), the connection was reused: %v", i, got.status, got.body, got.err, used)
		}
	}
}

// TestExpectContinue: a client that waits for "100 Continue" before it sends the body, as curl does for large ones.
func TestExpectContinue(t *testing.T) {
	h := newHost(t)
	h.space.route("/taken", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // the length shows a failure
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, n)
	})
	h.space.route("/refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for range 3 {
		if got := h.post("/taken", "0123456789", "Expect: 100-continue"); got.status != http.StatusUnprocessableEntity || got.body != "10" {
			t.Errorf("got %d %s (%v)", got.status, got.body, got.err)
		}
		if got := h.post("/refused", "0123456789", "Expect: 100-continue"); got.status != http.StatusForbidden {
			t.Errorf("refused: got %d %s (%v)", got.status, got.body, got.err)
		}
	}
}
