package link

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// gate limits handshakes by a token bucket. Connections wait in their order. A connection that turns out to be a node's gives its
// token back, so that many nodes can connect at the same time.
type gate struct {
	rate  float64 // tokens a second
	burst float64
	share int // connections of one address that may wait

	mu      sync.Mutex
	tokens  float64
	at      time.Time // of tokens
	waiting []waiter
	timer   *time.Timer
}

type waiter struct {
	address string
	ready   chan struct{}
}

// maxWaiting bounds the connections that wait at a gate. After a restart of the front, all nodes of a large cluster wait at the gate of
// strangers; a connection that is refused is dialled again only after a pause.
const maxWaiting = 2048

var errBusy = errors.New("too many connections wait for a handshake")

func newGate(rate, burst float64, share int) *gate {
	return &gate{rate: rate, burst: burst, share: share, tokens: burst, at: time.Now()}
}

// enter takes a token for a connection, or waits for one until ctx ends. One address cannot take all places: a node of another one
// waits for no more than its share.
func (g *gate) enter(ctx context.Context, address string) error {
	here := waiter{address, make(chan struct{})}
	if !g.queue(here) {
		return errBusy
	}
	select {
	case <-here.ready:
		return nil
	case <-ctx.Done():
		g.leave(here)
		return context.Cause(ctx)
	}
}

func (g *gate) queue(here waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	same := 0
	for _, other := range g.waiting {
		if other.address == here.address {
			same++
		}
	}
	if len(g.waiting) >= maxWaiting || same >= g.share {
		return false
	}
	g.waiting = append(g.waiting, here)
	g.advance()
	return true
}

func (g *gate) leave(here waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.waiting)
	g.waiting = slices.DeleteFunc(g.waiting, func(other waiter) bool { return other.ready == here.ready })
	if n == len(g.waiting) { // it has the token
		g.tokens++
	}
	g.advance()
}

// refund gives a token back.
func (g *gate) refund() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens++
	g.advance()
}

// advance adds the tokens of the time that has passed, and hands them out. g.mu is held.
func (g *gate) advance() {
	now := time.Now()
	g.tokens = min(g.burst, g.tokens+now.Sub(g.at).Seconds()*g.rate)
	g.at = now
	for g.tokens >= 1 && len(g.waiting) > 0 {
		close(g.waiting[0].ready)
		g.waiting = g.waiting[1:]
		g.tokens--
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	if len(g.waiting) == 0 {
		return
	}
	missing := time.Duration((1 - g.tokens) / g.rate * float64(time.Second))
	g.timer = time.AfterFunc(missing+time.Millisecond, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.advance()
	})
}

// gates has one gate for all strangers, and one for each address that a node has connected from.
type gates struct {
	strangers *gate

	mu    sync.Mutex
	known map[string]*knownAddress
}

type knownAddress struct {
	gate *gate
	at   time.Time // of the latest connection of a node
}

const (
	strangerRate  = 10 // handshakes a second of all addresses without a node
	strangerShare = 64
	knownRate     = 100 // of one address with a node
	knownBurst    = 512
	knownWaiting  = 256
	knownFor      = time.Hour
	maxKnownAddrs = 8192
)

func newGates() *gates {
	return &gates{strangers: newGate(strangerRate, strangerRate, strangerShare), known: map[string]*knownAddress{}}
}

// of returns the gate of an address.
func (g *gates) of(address string) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known, ok := g.known[address]; ok && time.Since(known.at) < knownFor {
		return known.gate
	}
	return g.strangers
}

// welcome records that a node has connected from an address.
func (g *gates) welcome(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known, ok := g.known[address]; ok {
		known.at = time.Now()
		return
	}
	if len(g.known) >= maxKnownAddrs {
		for other, known := range g.known {
			if time.Since(known.at) >= knownFor {
				delete(g.known, other)
			}
		}
	}
	if len(g.known) < maxKnownAddrs {
		g.known[address] = &knownAddress{gate: newGate(knownRate, knownBurst, knownWaiting), at: time.Now()}
	}
}
