package link_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// Strangers that connect and stay silent neither use much memory nor keep a node from its front.
func TestThousandConnectionsOfStrangers(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	l := f.dial(d)
	before := memory()
	var silent []net.Conn
	defer func() {
		for _, conn := range silent {
			conn.Close()
		}
	}()
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 1000 {
		conn, err := stranger.DialContext(t.Context(), "tcp", d.Address)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	for range 10 {
		stream, err := l.Open(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		stream.Close()
	}
	if after := memory(); after > before+50<<20 {
		t.Errorf("the memory has grown by %d MB", (after-before)>>20)
	}
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// serve serves nodes in a network of the test, until its end.
func (f *front) serve(t *testing.T) *linktest.Network {
	network := linktest.NewNetwork()
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { f.Serve(ctx, network) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	return network
}

// Strangers get 10 handshakes a second, and wait in their order.
func TestHandshakesOfStrangersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		network := f.serve(t)
		d := &link.Dialer{Address: linktest.Address, DialContext: network.Dial("10.0.0.2"), Handler: echo}
		f.join(d, "gpu1")
		l := f.dial(d)
		defer l.Close()
		stranger := link.Dialer{Address: linktest.Address, DialContext: network.Dial("10.9.9.9"), Handler: echo, Identity: linktest.NewIdentity(t, f.CA, "gpu9")}
		var mu sync.Mutex
		answered, dropped := 0, 0
		var dialling sync.WaitGroup
		time.Sleep(time.Minute)
		for range 400 {
			dialling.Go(func() {
				_, _, err := stranger.Dial(t.Context(), nil)
				var e *link.RemoteError
				mu.Lock()
				defer mu.Unlock()
				if errors.As(err, &e) {
					answered++
				} else {
					dropped++
				}
			})
		}
		synctest.Wait()
		expect := func(after string, least, most int) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if answered < least || answered > most {
				t.Errorf("%s: %d answers, want %d to %d", after, answered, least, most)
			}
		}
		expect("at first", 10, 10)
		time.Sleep(2 * time.Second)
		expect("after 2 s", 29, 31)
		if _, err := l.Open(t.Context(), 1); err != nil { // a node does not wait
			t.Error(err)
		}
		expect("after the stream of a node", 29, 31)
		dialling.Wait()
		if answered > 115 || answered+dropped != 400 {
			t.Errorf("%d answered and %d dropped", answered, dropped)
		}
	})
}

// Many nodes connect at the same time, although the front knows none of their addresses.
func TestManyNodesConnectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		f.Authorize = func(string, [32]byte) error { return nil }
		network := f.serve(t)
		begun := time.Now()
		var all sync.WaitGroup
		for n := range 100 {
			all.Go(func() {
				d := &link.Dialer{Address: linktest.Address, DialContext: network.Dial(fmt.Sprintf("10.0.1.%d", n)), Handler: echo}
				d.Identity = linktest.NewIdentity(t, f.CA, fmt.Sprintf("gpu%d", n))
				l, _, err := d.Dial(t.Context(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				l.Close()
				l.Wait()
			})
		}
		all.Wait()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("100 nodes took %s", took)
		}
	})
}

// A node of another address connects while one address floods a front that knows no node yet.
func TestNodeConnectsDuringAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		f.Authorize = func(string, [32]byte) error { return nil }
		network := f.serve(t)
		flood := network.Dial("10.9.9.9")
		for range 1000 {
			conn, err := flood(t.Context(), "tcp", linktest.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		synctest.Wait()
		begun := time.Now()
		d := &link.Dialer{Address: linktest.Address, DialContext: network.Dial("10.0.0.2"), Handler: echo}
		d.Identity = linktest.NewIdentity(t, f.CA, "gpu1")
		l, _, err := d.Dial(t.Context(), nil)
		if err != nil {
			t.Fatalf("after %s: %v", time.Since(begun), err)
		}
		defer l.Close()
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("the node has waited for %s", took)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := f.Link("gpu1").Open(t.Context(), 1); err != nil { // by a spare, which was not kept waiting
			t.Error(err)
		}
	})
}
