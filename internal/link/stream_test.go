package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

func TestStreams(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, caller, _ *link.Link) {
		var all sync.WaitGroup
		for n := range 20 {
			all.Go(func() {
				stream, err := caller.Open(t.Context(), number{n})
				if err != nil {
					t.Error(err)
					return
				}
				defer stream.Close()
				hello, _ := json.Marshal(number{n})
				data := bytes.Repeat([]byte{byte(n)}, 300<<10)
				go func() {
					stream.Write(data)
					stream.(interface{ CloseWrite() error }).CloseWrite() // half of it: the answer still comes
				}()
				got, err := io.ReadAll(stream)
				if err != nil || !bytes.Equal(got, append(hello, data...)) {
					t.Errorf("stream %d: %d bytes, %v", n, len(got), err)
				}
			})
		}
		all.Wait()
		if caller.Err() != nil {
			t.Errorf("the link is down: %v", caller.Err())
		}
	})
}

// connections returns the connections of a link after a time without use.
func connections(p *linktest.Proxy, after time.Duration) int {
	time.Sleep(after)
	synctest.Wait()
	return p.Open()
}

// There are 4 spares, as many as were used in the last minute, and 64 at most, besides the control connection.
func TestSparesFollowTheirUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := linktest.Pair(t, linktest.Handler{}, linktest.Handler{})
		if n := connections(ends.Proxy, 4*time.Second); n != 1+4 { // the first spares come after up to 3 s
			t.Errorf("%d connections at first, want 5", n)
		}
		use := func(n int) {
			for range n {
				stream, err := ends.Front.Open(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				stream.Close()
			}
		}
		use(20)
		if n := connections(ends.Proxy, time.Second); n != 1+20 {
			t.Errorf("%d connections after 20 streams, want 21", n)
		}
		use(100)
		if n := connections(ends.Proxy, time.Second); n != 1+64 {
			t.Errorf("%d connections after 120 streams, want 65", n)
		}
		if n := connections(ends.Proxy, 2*time.Minute); n != 1+4 {
			t.Errorf("%d connections after two minutes without streams, want 5", n)
		}
		use(1)
	})
}

// Open waits while there is no spare, and its end loses none.
func TestOpenWaitsForASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := linktest.Pair(t, echo, echo)
		time.Sleep(time.Second)
		ends.Proxy.SetDelay(2 * time.Second)
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				stream, err := ends.Front.Open(t.Context(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				stream.Close()
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		synctest.Wait()
		if _, err := ends.Front.Open(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
		waiting.Wait()
	})
}

// A spare that has ended is not used.
func TestDeadSparesAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := linktest.Pair(t, echo, echo)
		time.Sleep(time.Second)
		synctest.Wait()
		ends.Proxy.EndStreams()
		stream, err := ends.Front.Open(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1)
		if _, err := io.ReadFull(stream, got); err != nil || got[0] != '7' {
			t.Errorf("got %q, %v", got, err)
		}
		stream.Close()
	})
}

// Wait returns after the handlers of streams, and no goroutine is left (synctest.Test fails if one is).
func TestWaitWaitsForHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := false
		h := linktest.Handler{OnStream: func(_ *link.Link, _ json.RawMessage, conn net.Conn) {
			io.ReadAll(conn) // ends with the link
			time.Sleep(time.Minute)
			returned = true
		}}
		for _, ends := range []*linktest.Ends{linktest.Pair(t, echo, h), linktest.Pair(t, h, echo)} {
			returned = false
			opener, other := ends.Front, ends.Agent
			if ends.Server.Handler.(linktest.Handler).OnCall == nil {
				opener, other = other, opener
			}
			if _, err := opener.Open(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			opener.Close()
			other.Wait()
			if !returned {
				t.Error("Wait has returned before the handler")
			}
		}
	})
}

// The connections after the first one save the signatures of both ends, and the front still knows the node.
func TestStreamsResumeTheSession(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	l := f.dial(d)
	for n := range 5 {
		stream, err := l.Open(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if !link.Resumed(stream) {
			t.Errorf("stream %d has not resumed the session", n)
		}
		stream.Close()
	}
}

// A client of TLS 1.2, and one that names no protocol, are refused in the handshake.
func TestOldClientsAreRefused(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	for what, config := range map[string]*tls.Config{
		"TLS 1.2":          {MaxVersion: tls.VersionTLS12, NextProtos: []string{"spacehost-link/1"}},
		"no protocol":      {},
		"another protocol": {NextProtos: []string{"h2"}},
		"join in TLS 1.2":  {MaxVersion: tls.VersionTLS12, NextProtos: []string{"spacehost-join/1"}},
		"a later version":  {NextProtos: []string{"spacehost-link/2"}},
	} {
		config.InsecureSkipVerify, config.Certificates = true, []tls.Certificate{d.Identity.Certificate}
		if conn, err := tls.Dial("tcp", d.Address, config); err == nil {
			t.Errorf("%s: connected", what)
			conn.Close()
		}
	}
}
