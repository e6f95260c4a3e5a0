package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
)

// TestStalledBodyIsCut: a request whose body stops is cut off; a response to a complete request may take any time.
func TestStalledBodyIsCut(t *testing.T) {
	s := New(nil)
	s.bodyGrace = 200 * time.Millisecond
	site, err := s.Mount("127.0.0.1:0", "--addr")
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	site.POST("/", func(c echo.Context) error {
		_, err := io.Copy(io.Discard, c.Request().Body)
		read <- err
		if err != nil {
			return echo.ErrBadRequest
		}
		select {
		case <-c.Request().Context().Done():
			return context.Cause(c.Request().Context())
		case <-time.After(3 * s.bodyGrace):
			return c.NoContent(http.StatusNoContent)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	for body, want := range map[string]int{
		"Content-Length: 10\r\n\r\nhalf":                           http.StatusBadRequest,
		"Content-Length: 10\r\n\r\n":                               http.StatusBadRequest,
		"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n":          http.StatusBadRequest,
		"Content-Length: 4\r\n\r\nfull":                            http.StatusNoContent,
		"Transfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n": http.StatusNoContent,
	} {
		conn, err := net.Dial("tcp", site.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s", body)
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%q: %v", body, err)
			continue
		}
		response.Body.Close()
		if err := <-read; response.StatusCode != want || (err != nil) != (want == http.StatusBadRequest) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: got %s, and the handler's read returned %v", body, response.Status, err)
		}
	}
}

// slowBody is a client that sends a body in chunks, and a handler that reads it.
type slowBody struct {
	each   int           // bytes per chunk
	every  time.Duration // after each chunk
	times  int
	reader time.Duration // between two reads
	late   time.Duration // when the read fails; 0: never
}

// TestSlowBodyIsCut: after the first minute, a body must average one kilobyte per second of waiting time.
func TestSlowBodyIsCut(t *testing.T) {
	const kib = 1 << 10
	for name, c := range map[string]slowBody{
		"nothing":                      {0, 0, 0, 0, time.Minute},
		"a byte now and then":          {1, 10 * time.Second, 100, 0, time.Minute},
		"fast, then nothing":           {100 * kib, 0, 1, 0, time.Minute},
		"at the minimum rate":          {kib, time.Second, 600, 0, 0},
		"half the rate for a while":    {kib / 2, time.Second, 100, 0, 0},
		"half the rate for long":       {kib / 2, time.Second, 600, 0, 2 * time.Minute},
		"fast, to a slow reader":       {8 * kib, 0, 10, 5 * time.Minute, 0},
		"in pieces with long pauses":   {100 * kib, 50 * time.Second, 10, 0, 0},
		"in pieces with longer pauses": {100 * kib, 70 * time.Second, 10, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, c.test)
		})
	}
}

func (c slowBody) test(t *testing.T) {
	here, there := net.Pipe()
	began, over := time.Now(), make(chan struct{})
	go c.send(there, over)
	body := &timedBody{ReadCloser: here, setDeadline: here.SetReadDeadline, grace: bodyGrace}
	var err error
	for err == nil {
		_, err = body.Read(make([]byte, 256<<10))
		time.Sleep(c.reader)
	}
	took := time.Since(began)
	close(over)
	here.Close()
	switch {
	case c.late == 0 && err != io.EOF:
		t.Errorf("after %v and %d bytes: got %v, want EOF", took, body.got, err)
	case c.late > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took < c.late-2*time.Second || took > c.late+2*time.Second):
		t.Errorf("got %v after %v, want an exceeded deadline after %v", err, took, c.late)
	}
}

// send writes the chunks. If the body is expected to be cut, it then waits for over instead of ending the body.
func (c slowBody) send(to net.Conn, over <-chan struct{}) {
	defer to.Close()
	for range c.times {
		if _, err := to.Write([]byte(strings.Repeat("x", c.each))); err != nil {
			return
		}
		select {
		case <-time.After(c.every):
		case <-over:
			return
		}
	}
	if c.late > 0 {
		<-over
	}
}
