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

// TestTakenConnectionIsReturned: the server answers the next request on a returned connection completely, and the
// connection keeps its Conn. A server that has ended accepts no connection.
func TestTakenConnectionIsReturned(t *testing.T) {
	s := server.New(nil)
	site, err := s.Mount("127.0.0.1:0", "--addr")
	if err != nil {
		t.Fatal(err)
	}
	taker := &taker{T: t, goOn: make(chan struct{}, 1), returned: make(chan bool, 1)}
	site.GET("/take", taker.take)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", site.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	reader := bufio.NewReader(conn)
	request := func() {
		t.Helper()
		fmt.Fprint(conn, "GET /take HTTP/1.1\r\nHost: x\r\n\r\n")
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err != nil || string(body) != "taken" {
			t.Fatalf("got %q (%v)", body, err)
		}
	}
	request()
	taker.goOn <- struct{}{}
	request() // its first bytes cause the return of the connection
	ok, seen := <-taker.returned, taker.seen
	if !ok || len(seen) != 2 || seen[0] == nil || seen[0] != seen[1] {
		t.Errorf("not the same connection: %v", seen)
	}
	stop()
	<-ended
	fmt.Fprint(conn, "GET")
	taker.goOn <- struct{}{}
	if <-taker.returned {
		t.Error("a server that has ended accepted a returned connection")
	}
}

// taker is a handler that takes over the connection of each request. It answers, reads the first bytes of the next
// request, waits for goOn and returns the connection.
type taker struct {
	*testing.T
	seen     []*server.Conn
	goOn     chan struct{}
	returned chan bool
}

func (k *taker) take(c echo.Context) error {
	k.seen = append(k.seen, server.ConnOf(c.Request().Context()))
	conn, _, err := http.NewResponseController(c.Response().Writer).Hijack()
	if err != nil {
		k.Error(err)
		return err
	}
	go func() {
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")
		var early [3]byte
		if _, err := io.ReadFull(conn, early[:]); err != nil {
			k.Error(err)
		}
		<-k.goOn
		k.returned <- conn.(interface{ Return([]byte) bool }).Return(early[:])
	}()
	return nil
}
