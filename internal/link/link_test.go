package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

type number struct{ N int }

// echo answers calls with their body, and streams with their hello and bytes.
var echo = linktest.Handler{
	OnCall: func(_ context.Context, _ *link.Link, _ string, body json.RawMessage) (any, error) { return body, nil },
	OnStream: func(_ *link.Link, hello json.RawMessage, conn net.Conn) {
		defer conn.Close()
		conn.Write(hello)
		io.Copy(conn, conn)
	},
}

// bothWays runs a test with the agent as the callee, and again with the front.
func bothWays(t *testing.T, callee link.Handler, test func(t *testing.T, caller, called *link.Link)) {
	t.Run("front calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ends := linktest.Pair(t, echo, callee)
			test(t, ends.Front, ends.Agent)
		})
	})
	t.Run("agent calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ends := linktest.Pair(t, callee, echo)
			test(t, ends.Agent, ends.Front)
		})
	})
}

func TestCallsAreAnswered(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, caller, _ *link.Link) {
		var calling sync.WaitGroup
		for n := range 50 {
			calling.Go(func() {
				var got number
				if err := caller.Call(t.Context(), "echo", number{n}, &got); err != nil || got.N != n {
					t.Errorf("call %d: got %v, %v", n, got, err)
				}
			})
		}
		calling.Wait()
	})
}

// A call that is begun reaches the other end before anything waits for it.
func TestBegunCalls(t *testing.T) {
	reached := make(chan json.RawMessage, 2)
	callee := linktest.Handler{OnCall: func(_ context.Context, _ *link.Link, _ string, body json.RawMessage) (any, error) {
		reached <- body
		return body, nil
	}}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		first, second := caller.Begin("echo", number{1}), caller.Begin("echo", number{2})
		synctest.Wait()
		<-reached
		<-reached
		var one, two number
		if err := errors.Join(second(t.Context(), &two), first(t.Context(), &one)); err != nil || one.N != 1 || two.N != 2 {
			t.Errorf("got %v and %v, %v", one, two, err)
		}
		ended, end := context.WithCancelCause(t.Context())
		end(errors.New("given up"))
		if err := caller.Begin("echo", number{3})(ended, nil); err == nil || !strings.Contains(err.Error(), "given up") {
			t.Errorf("wait with an ended context: %v", err)
		}
		synctest.Wait()
		<-reached
		caller.Close()
		if err := caller.Begin("echo", number{4})(t.Context(), nil); !errors.Is(err, link.ErrDown) {
			t.Errorf("call of a link that is down: %v", err)
		}
	})
}

func TestErrorsKeepCodeAndDetail(t *testing.T) {
	callee := linktest.Handler{OnCall: func(_ context.Context, _ *link.Link, op string, _ json.RawMessage) (any, error) {
		if op == "plain" {
			return nil, errors.New("no such worker")
		}
		return nil, &link.RemoteError{Code: "busy", Text: "the Device is busy", Detail: json.RawMessage(`{"N":7}`)}
	}}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		var e *link.RemoteError
		if err := caller.Call(t.Context(), "plain", nil, nil); !errors.As(err, &e) || e.Text != "no such worker" || e.Code != "" {
			t.Errorf("plain error: got %#v", err)
		}
		if err := caller.Call(t.Context(), "coded", nil, nil); !errors.As(err, &e) || e.Code != "busy" || string(e.Detail) != `{"N":7}` {
			t.Errorf("error with a code: got %#v", err)
		}
		if err := caller.Call(t.Context(), "link.other", nil, nil); !errors.As(err, &e) || e.Code != link.CodeProtocol {
			t.Errorf("unknown op of the package: got %v, want code %q", err, link.CodeProtocol)
		}
	})
}

// A call begins after the Tells before it, and Tells keep their order.
func TestOrder(t *testing.T) {
	var mu sync.Mutex
	var got []int
	callee := linktest.Handler{
		OnTell: func(_ *link.Link, _ string, body json.RawMessage) {
			var n number
			json.Unmarshal(body, &n)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n.N)
		},
		OnCall: func(context.Context, *link.Link, string, json.RawMessage) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			return len(got), nil
		},
	}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		got = nil
		for n := range 300 {
			if err := caller.Tell("n", number{n}); err != nil {
				t.Fatal(err)
			}
			if n%100 != 99 {
				continue
			}
			var told int
			if err := caller.Call(t.Context(), "told", nil, &told); err != nil || told != n+1 {
				t.Errorf("after %d Tells the call sees %d, %v", n+1, told, err)
			}
		}
		if !slices.IsSorted(got) {
			t.Errorf("got the order %v", got)
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	ended := make(chan error, 2)
	callee := linktest.Handler{OnCall: func(ctx context.Context, _ *link.Link, _ string, _ json.RawMessage) (any, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if err := caller.Call(ctx, "wait", nil, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(begun))
		}
		<-ended // the context of the handler
		go func() {
			time.Sleep(time.Second)
			caller.Close()
		}()
		if err := caller.Call(t.Context(), "wait", nil, nil); !errors.Is(err, link.ErrDown) || !errors.Is(err, link.ErrClosed) {
			t.Errorf("call on a closed link: got %v", err)
		}
		<-ended
	})
}

func TestCloseEndsBothEnds(t *testing.T) {
	bothWays(t, echo, func(t *testing.T, caller, called *link.Link) {
		stream, err := caller.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		called.Close()
		called.Close()
		if _, err := io.ReadAll(stream); err == nil {
			synctest.Wait() // an end in order is an end as well
		}
		<-caller.Done()
		var e *link.RemoteError
		if !errors.As(caller.Err(), &e) || !errors.Is(called.Err(), link.ErrClosed) {
			t.Errorf("causes %v and %v", caller.Err(), called.Err())
		}
		if err := caller.Tell("x", nil); !errors.Is(err, link.ErrDown) {
			t.Errorf("Tell: got %v", err)
		}
		if _, err := caller.Open(t.Context(), "s"); !errors.Is(err, link.ErrDown) {
			t.Errorf("Open: got %v", err)
		}
		caller.Wait()
		called.Wait()
	})
}

func TestTooLargeMessagesAreNotSent(t *testing.T) {
	large := make([]byte, link.MaxMessage)
	callee := linktest.Handler{OnCall: func(context.Context, *link.Link, string, json.RawMessage) (any, error) { return large, nil }}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		if err := caller.Tell("large", large); err == nil || errors.Is(err, link.ErrDown) {
			t.Errorf("Tell: got %v", err)
		}
		if _, err := caller.Open(t.Context(), large[:link.MaxLine]); err == nil || errors.Is(err, link.ErrDown) {
			t.Errorf("Open: got %v", err)
		}
		var e *link.RemoteError
		if err := caller.Call(t.Context(), "large answer", nil, nil); !errors.As(err, &e) {
			t.Errorf("Call with a large answer: got %v", err)
		}
		if caller.Err() != nil {
			t.Errorf("the link is down: %v", caller.Err())
		}
	})
}

// A slow peer delays its own messages alone: Tell does not block, and the link ends before the messages fill the memory.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := linktest.Pair(t, echo, echo)
		ends.Proxy.Deafen(linktest.ToAgent)
		body := make([]byte, 500<<10)
		var err error
		sent := 0
		for ; err == nil && sent < 100; sent++ {
			err = ends.Front.Tell("large", body)
		}
		if !errors.Is(err, link.ErrSlow) || sent < 10 || sent > 40 {
			t.Errorf("got %v after %d messages", err, sent)
		}
	})
}

func TestRateOfMessagesIsLimited(t *testing.T) {
	told := 0
	callee := linktest.Handler{OnTell: func(*link.Link, string, json.RawMessage) { told++ }}
	synctest.Test(t, func(t *testing.T) {
		ends := linktest.Pair(t, callee, echo)
		begun := time.Now()
		for range 20000 {
			if err := ends.Agent.Tell("x", nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := ends.Agent.Call(t.Context(), "told", nil, nil); err == nil || told != 20000 {
			t.Errorf("%d messages have come, error %v", told, err)
		}
		if took := time.Since(begun); took < 2900*time.Millisecond || took > 4*time.Second {
			t.Errorf("20,000 messages took %s, not some 3 s", took)
		}
		if ends.Front.Err() != nil {
			t.Errorf("the link is down: %v", ends.Front.Err())
		}
	})
}

// TestPanicOfAHandler: what a peer sends can make a handler panic. That fails the call, and the link and its program go on.
func TestPanicOfAHandler(t *testing.T) {
	told := make(chan string, 2)
	callee := linktest.Handler{
		OnCall: func(_ context.Context, _ *link.Link, op string, _ json.RawMessage) (any, error) {
			if op == "panic" {
				panic("a nil pointer")
			}
			return number{1}, nil
		},
		OnTell: func(_ *link.Link, op string, _ json.RawMessage) {
			if op == "panic" {
				panic("a nil pointer")
			}
			told <- op
		},
		OnStream: func(*link.Link, json.RawMessage, net.Conn) { panic("a nil pointer") },
	}
	bothWays(t, callee, func(t *testing.T, caller, _ *link.Link) {
		var e *link.RemoteError
		if err := caller.Call(t.Context(), "panic", nil, nil); !errors.As(err, &e) || e.Code != link.CodeInternal || strings.Contains(e.Text, "pointer") {
			t.Errorf("call: %v, want an error with the code %q", err, link.CodeInternal)
		}
		for _, op := range []string{"panic", "after"} {
			if err := caller.Tell(op, nil); err != nil {
				t.Errorf("message: %v", err)
			}
		}
		if op := <-told; op != "after" {
			t.Errorf("the handler got %q", op)
		}
		stream, err := caller.Open(t.Context(), number{1})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if text, err := io.ReadAll(stream); len(text) != 0 {
			t.Errorf("stream: %q (%v), want its end", text, err)
		}
		var got number
		if err := caller.Call(t.Context(), "other", nil, &got); err != nil || got.N != 1 {
			t.Errorf("the next call: %v, %v", got, err)
		}
	})
}
