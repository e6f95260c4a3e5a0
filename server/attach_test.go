package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// wrappingListener accepts connections that are no TCP connections to a Server.
type wrappingListener struct{ net.Listener }

func (l wrappingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{conn}, nil
}

// attached serves a Site at a listener of its own, whose clients belong to "demo".
func attached(t *testing.T, s *Server, handle echo.HandlerFunc) (url string, a *Attachment) {
	t.Helper()
	return attachedAs(t, s, true, handle)
}

// eachKind runs a test with TCP connections, and with others.
func eachKind(t *testing.T, test func(t *testing.T, ofTCP bool)) {
	for name, ofTCP := range map[string]bool{"TCP": true, "other": false} {
		t.Run(name, func(t *testing.T) { test(t, ofTCP) })
	}
}

func attachedAs(t *testing.T, s *Server, ofTCP bool, handle echo.HandlerFunc) (url string, a *Attachment) {
	t.Helper()
	site := s.NewSite()
	site.GET("/", handle)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if !ofTCP {
		l = wrappingListener{l}
	}
	a = s.Attach(site, "demo", l)
	t.Cleanup(func() { s.Detach(a) })
	return "http://" + l.Addr().String(), a
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// TestAttachedOwner: the owner is known without a lookup, and the headers of a proxy have no effect.
func TestAttachedOwner(t *testing.T) { eachKind(t, attachedOwner) }

func attachedOwner(t *testing.T, ofTCP bool) {
	s := New(nil)
	defer s.Close()
	s.Visitor = func(*http.Request) (*http.Request, error) {
		t.Error("a client of an attached listener counts as a proxy")
		return nil, io.EOF
	}
	url, _ := attachedAs(t, s, ofTCP, func(c echo.Context) error {
		conn := ConnOf(c.Request().Context())
		owner := conn.Owner(func(netip.AddrPort, netip.AddrPort) string { return "found by a lookup" })
		return c.String(http.StatusOK, fmt.Sprint(owner, " ", conn.IsLocal(), " ", conn.Attached))
	})
	if status, body := get(t, url); status != http.StatusOK || body != "demo true true" {
		t.Errorf("%d %s", status, body)
	}
}

// TestAttachedConnectionsAreBounded counts only the owner's own connections, from the first on.
func TestAttachedConnectionsAreBounded(t *testing.T) { eachKind(t, attachedConnectionsAreBounded) }

func attachedConnectionsAreBounded(t *testing.T, ofTCP bool) {
	s := New(nil)
	defer s.Close()
	s.LimitOwners(func(netip.AddrPort, netip.AddrPort) string { return "" }, map[string]int{"demo": 3})
	url, _ := attachedAs(t, s, ofTCP, func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	var open []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil { // it is counted once it is read
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	if answer := fourth(t, url); !strings.Contains(answer, " 503 ") || !strings.Contains(answer, "demo has 3 connections") {
		t.Errorf("a fourth connection: %s", answer)
	}
	open[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for answer := ""; !strings.Contains(answer, " 204 "); answer = fourth(t, url) {
		if time.Now().After(deadline) {
			t.Fatalf("a closed connection still counts: %s", answer)
		}
	}
}

// fourth sends a request on a new connection and returns the response. A refusal can arrive before the request is read.
func fourth(t *testing.T, url string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	text, _ := io.ReadAll(conn) // a reset after the response is no failure
	return string(text)
}

// TestDetach cuts open connections, and returns when nothing is served any more.
func TestDetach(t *testing.T) {
	s := New(nil)
	defer s.Close()
	began, ended := make(chan struct{}), make(chan struct{})
	url, a := attached(t, s, func(c echo.Context) error {
		close(began)
		<-c.Request().Context().Done()
		close(ended)
		return nil
	})
	go func() {
		if answer, err := http.Get(url); err == nil {
			answer.Body.Close()
		}
	}()
	<-began
	s.Detach(a)
	s.Detach(a)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the request goes on")
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		conn.Close()
		t.Error("the listener still accepts")
	}
	if len(s.attachments()) != 0 {
		t.Error("the attachment is kept")
	}
}
