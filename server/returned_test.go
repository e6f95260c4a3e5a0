package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/server"
)

// TestAConnectionThatWasTakenComesBack: the next request on it is answered, whole, by who reads it then, and the
// connection is still the same. Once the server has ended none is taken back.
func TestAConnectionThatWasTakenComesBack(t *testing.T) {
	s := server.New(nil)
	site, err := s.Mount("127.0.0.1:0", "--addr")
	if err != nil {
		t.Fatal(err)
	}
	var seen []*server.Conn
	goOn, back := make(chan struct{}, 1), make(chan bool, 1)
	site.GET("/take", func(c echo.Context) error {
		seen = append(seen, server.ConnOf(c.Request().Context()))
		conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
		if err != nil {
			t.Error(err)
			return err
		}
		go func() {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")
			var early [3]byte
			if _, err := io.ReadFull(conn, early[:]); err != nil {
				t.Error(err)
			}
			<-goOn
			back <- conn.(interface{ Return([]byte) bool }).Return(early[:])
		}()
		return nil
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", site.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	answers := bufio.NewReader(conn)
	take := func() {
		t.Helper()
		fmt.Fprint(conn, "GET /take HTTP/1.1\r\nHost: x\r\n\r\n")
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "taken" {
			t.Fatalf("got %q (%v)", body, err)
		}
	}
	take()
	goOn <- struct{}{}
	take() // its first bytes bring the connection back
	if !<-back || len(seen) != 2 || seen[0] == nil || seen[0] != seen[1] {
		t.Errorf("not the same connection: %v", seen)
	}
	stop()
	<-ended
	fmt.Fprint(conn, "GET")
	goOn <- struct{}{}
	if <-back {
		t.Error("taken back by a server that has ended")
	}
}
