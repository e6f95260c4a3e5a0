package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// Serve returns when all links have ended and all handlers have returned. The nodes get the reason.
func TestServerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		returned := false
		f := newFront(t, linktest.Handler{OnStream: func(_ *link.Link, _ json.RawMessage, conn net.Conn) {
			io.ReadAll(conn)
			time.Sleep(time.Second)
			returned = true
		}})
		f.Authorize = func(string, [32]byte) error { return nil }
		network := linktest.NewNetwork()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- f.Serve(ctx, network) }()
		d := &link.Dialer{Address: linktest.Address, DialContext: network.Dial("10.0.0.2"), Handler: echo}
		d.Identity = linktest.NewIdentity(t, f.CA, "gpu1")
		l, _, err := d.Dial(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Open(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		half, err := d.DialContext(t.Context(), "tcp", d.Address) // in its handshake
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-served; err != nil || !returned {
			t.Errorf("Serve returned %v, the handler: %v", err, returned)
		}
		l.Wait()
		var e *link.RemoteError
		if !errors.As(l.Err(), &e) || e.Code != link.CodeStopping {
			t.Errorf("the node gets %v", l.Err())
		}
		half.Close()
		if _, _, err := d.Dial(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("dial a front that has ended: %v", err)
		}
	})
}

func TestHelloIsRefused(t *testing.T) {
	for what, row := range map[string]struct {
		err        error
		code, text string
	}{
		"in words":     {&link.RemoteError{Code: "device", Text: "node gpu1 has this Device"}, "device", "node gpu1 has this Device"},
		"by a failure": {errors.New("open /secret/path: no such file"), link.CodeInternal, "its log has the cause"},
		"by an answer": {nil, link.CodeInternal, "its log has the cause"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFront(t, echo)
			var atFront *link.Link
			f.Hello = func(l *link.Link, _ json.RawMessage) (any, error) {
				atFront = l
				l.Tell("early", nil) // is not sent before the welcome
				return make(chan int), row.err
			}
			d, _ := linktest.Connect(t, f.Server)
			f.join(d, "gpu1")
			d.Handler = echo
			_, _, err := d.Dial(t.Context(), nil)
			var e *link.RemoteError
			if !errors.As(err, &e) || e.Code != row.code || !strings.Contains(e.Text, row.text) {
				t.Errorf("%s: got %v", what, err)
			}
			synctest.Wait()
			if atFront.Err() == nil || f.Link("gpu1") != nil {
				t.Errorf("%s: the link is alive", what)
			}
		})
	}
}

// What Hello sends arrives after the welcome.
func TestMessagesOfHelloFollowTheWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		f.Hello = func(l *link.Link, _ json.RawMessage) (any, error) { return "welcome", l.Tell("first", 1) }
		d, _ := linktest.Connect(t, f.Server)
		f.join(d, "gpu1")
		got := make(chan string, 1)
		d.Handler = linktest.Handler{OnTell: func(_ *link.Link, op string, _ json.RawMessage) { got <- op }}
		_, welcome, err := d.Dial(t.Context(), nil)
		if err != nil || string(welcome) != `"welcome"` {
			t.Fatalf("got %s, %v", welcome, err)
		}
		if op := <-got; op != "first" {
			t.Errorf("got %q", op)
		}
	})
}

// A dial ends with its context at each step, and with a timeout if the front does not answer.
func TestDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		f.Hello = func(*link.Link, json.RawMessage) (any, error) { time.Sleep(time.Hour); return nil, nil }
		d, proxy := linktest.Connect(t, f.Server)
		f.join(d, "gpu1")
		for what, prepare := range map[string]func(){"hello": func() {}, "network": proxy.Partition} {
			prepare()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			begun := time.Now()
			if _, _, err := d.Dial(ctx, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 2*time.Second {
				t.Errorf("%s: got %v after %s", what, err, time.Since(begun))
			}
			cancel()
			begun = time.Now()
			if _, _, err := d.Dial(t.Context(), nil); err == nil || time.Since(begun) > link.LostAfter+time.Second {
				t.Errorf("%s without a context: got %v after %s", what, err, time.Since(begun))
			}
			if _, err := d.Join(t.Context(), f.token(time.Hour), "gpu2"); what == "network" && err == nil {
				t.Errorf("%s: joined", what)
			}
			proxy.Heal()
		}
	})
}

// The same over TCP, with the faults of a proxy on a loopback port.
func TestFaultsOverTCP(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	proxy := linktest.NewTCPProxy(t, d.Address)
	d.Address = proxy.Addr()
	f.join(d, "gpu1")
	l := f.dial(d)
	proxy.SetDelay(10 * time.Millisecond)
	if err := l.Call(t.Context(), "echo", number{1}, nil); err != nil {
		t.Fatal(err)
	}
	stream, err := f.Link("gpu1").Open(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	await(t, "the end of the link", l.Done())
	if _, err := io.ReadAll(stream); err == nil {
		t.Log("the stream ends in order") // after its hello
	}
	if _, _, err := d.Dial(t.Context(), nil); err == nil {
		t.Error("dialled through a cut network")
	}
	proxy.Heal()
	again := f.dial(d)
	proxy.HalfOpen()
	await(t, "the end of the agent's side", again.Done())
	third := f.dial(d)
	awaitTrue(t, "the third link", func() bool { return f.Link("gpu1") != nil })
	proxy.DropAfter(10 << 10)
	big := strings.Repeat("x", 64<<10)
	if err := third.Call(t.Context(), "echo", big, nil); !errors.Is(err, link.ErrDown) {
		t.Errorf("call through a network that drops: %v", err)
	}
}

// A slow reader of a stream does not delay the messages.
func TestSlowReaderOfAStream(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	d.Handler = linktest.Handler{OnStream: func(l *link.Link, _ json.RawMessage, conn net.Conn) {
		<-l.Done() // reads nothing
		conn.Close()
	}}
	l := f.dial(d)
	stream, err := f.Link("gpu1").Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	stream.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := stream.Write(make([]byte, 64<<20)); !isTimeout(err) {
		t.Errorf("%d bytes written, %v: nothing has held them back", n, err)
	}
	if err := l.Call(t.Context(), "echo", number{1}, nil); err != nil {
		t.Error(err)
	}
}
