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

// A request whose body stops coming is cut; one that is whole may take as long as it likes to be answered.
func TestABodyThatStopsComing(t *testing.T) {
	s := New(nil)
	s.bodyPatience = 200 * time.Millisecond
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
		case <-time.After(3 * s.bodyPatience):
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
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%q: %v", body, err)
			continue
		}
		answer.Body.Close()
		if err := <-read; answer.StatusCode != want || (err != nil) != (want == http.StatusBadRequest) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %s, the handler read %v", body, answer.Status, err)
		}
	}
}

// TestABodyThatComesTooSlowly: a kilobyte for each second that was waited is enough, once a minute is over.
func TestABodyThatComesTooSlowly(t *testing.T) {
	const kib = 1 << 10
	for name, c := range map[string]struct {
		each   int
		every  time.Duration
		times  int
		reader time.Duration // between two reads
		late   time.Duration // when it is too slow; 0: it is not
	}{
		"nothing":                     {0, 0, 0, 0, time.Minute},
		"a byte now and then":         {1, 10 * time.Second, 100, 0, time.Minute},
		"fast, then nothing":          {100 * kib, 0, 1, 0, time.Minute},
		"as slow as it may be":        {kib, time.Second, 600, 0, 0},
		"half as fast, for a while":   {kib / 2, time.Second, 100, 0, 0},
		"half as fast, and goes on":   {kib / 2, time.Second, 600, 0, 2 * time.Minute},
		"fast, to a slow reader":      {8 * kib, 0, 10, 5 * time.Minute, 0},
		"in pieces with long rests":   {100 * kib, 50 * time.Second, 10, 0, 0},
		"in pieces with longer rests": {100 * kib, 70 * time.Second, 10, 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				began, over := time.Now(), make(chan struct{})
				go func() {
					defer there.Close()
					for range c.times {
						if _, err := there.Write([]byte(strings.Repeat("x", c.each))); err != nil {
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
				}()
				body := &hurriedBody{ReadCloser: here, until: here.SetReadDeadline, patience: bodyPatience}
				var err error
				for err == nil {
					_, err = body.Read(make([]byte, 256*kib))
					time.Sleep(c.reader)
				}
				took := time.Since(began)
				close(over)
				here.Close()
				switch {
				case c.late == 0 && err != io.EOF:
					t.Errorf("after %v and %d bytes: %v", took, body.got, err)
				case c.late > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took < c.late-2*time.Second || took > c.late+2*time.Second):
					t.Errorf("got %v after %v, want too slow after %v", err, took, c.late)
				}
			})
		})
	}
}
