package link_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// TestRandomFaults lets a node dial again and again through a network with random faults, while both ends call and open streams. No
// answer is that of another call, nothing blocks for ever (synctest would report it), and after the last fault the link works.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomFaults(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func randomFaults(t *testing.T, r *rand.Rand) {
	ends := linktest.Pair(t, echo, echo)
	ctx, cancel := context.WithCancel(t.Context())
	node := &redialler{d: ends.Dialer, l: ends.Agent}
	var all sync.WaitGroup
	all.Go(func() { node.run(ctx) })
	all.Go(func() { useLink(ctx, t, node.link) })
	all.Go(func() { useLink(ctx, t, func() *link.Link { return ends.Server.Link(linktest.Node) }) })
	p := ends.Proxy
	faults := []func(){
		p.Cut, p.Partition, p.HalfOpen, p.Heal, p.Heal, p.EndStreams,
		func() { p.Deafen(linktest.ToAgent) }, func() { p.Deafen(linktest.ToFront) },
		func() { p.DropAfter(r.Int64N(100 << 10)) },
		func() { p.SetDelay(time.Duration(r.IntN(500)) * time.Millisecond) },
		func() { p.SetRate(r.IntN(200) << 10) },
		func() { ends.Server.Revoke(linktest.Node) },
		func() { node.link().Close() },
	}
	for range 20 {
		faults[r.IntN(len(faults))]()
		time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
	}
	p.Heal()
	p.SetDelay(0)
	p.SetRate(0)
	time.Sleep(40 * time.Second)
	if err := node.link().Call(t.Context(), "echo", number{1}, nil); err != nil {
		t.Errorf("call after the faults: %v", err)
	}
	if stream, err := ends.Server.Link(linktest.Node).Open(t.Context(), 1); err != nil {
		t.Errorf("stream after the faults: %v", err)
	} else {
		stream.Close()
	}
	cancel()
	all.Wait()
	node.link().Close()
}

// redialler dials again when its link is down.
type redialler struct {
	d  *link.Dialer
	mu sync.Mutex
	l  *link.Link
}

func (r *redialler) link() *link.Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.l
}

func (r *redialler) run(ctx context.Context) {
	for {
		select {
		case <-r.link().Done():
		case <-ctx.Done():
			return
		}
		l, _, err := r.d.Dial(ctx, nil)
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		r.mu.Lock()
		r.l = l
		r.mu.Unlock()
	}
}

// useLink calls and opens streams, and checks what comes back.
func useLink(ctx context.Context, t *testing.T, current func() *link.Link) {
	for n := 0; ctx.Err() == nil; n++ {
		time.Sleep(500 * time.Millisecond)
		l := current()
		if l == nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		var got number
		err := l.Call(call, "echo", number{n}, &got)
		switch {
		case err == nil && got.N != n:
			t.Errorf("call %d gets the answer to %d", n, got.N)
		case err != nil && !errors.Is(err, link.ErrDown) && call.Err() == nil:
			t.Errorf("call %d: %v", n, err)
		}
		if stream, err := l.Open(call, n); err == nil {
			stream.SetDeadline(time.Now().Add(5 * time.Second))
			want := fmt.Sprint(n)
			data := make([]byte, len(want))
			if _, err := io.ReadFull(stream, data); err == nil && string(data) != want {
				t.Errorf("stream %d begins with %q", n, data)
			}
			stream.Close()
		}
		cancel()
	}
}
