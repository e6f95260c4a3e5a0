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
	"testing"
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
