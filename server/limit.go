package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// maxOwned is the number of connections that an owner may have open at a time, at all addresses of a Server together,
// unless limits names another one.
const maxOwned = 256

// connLimit bounds the connections of each owner to maxOwned. A connection without an owner, such as a visitor's, is never
// refused.
//
// The lookup of an owner costs 20 µs to milliseconds, so there is none while the Server has at most maxOwned connections:
// then no owner can exceed the bound. Each connection above is looked up when it is read for the first time. If it has an
// owner, those that came without a lookup are looked up as well, once. While maxLookups wait for their lookup, no more
// connections are accepted: those stay in the queue of the kernel, where they cost the host neither a descriptor nor
// memory.
type connLimit struct {
	owner func(client, server netip.AddrPort) string // nil: no bound
	log   *zap.Logger
	warn  rate.Sometimes // of the log: an owner may try in a loop
	slots chan struct{}  // semaphore of the connections that wait for their lookup

	mu      sync.Mutex
	limits  map[string]int // by owner; others have maxOwned
	open    int
	unknown map[*Conn]bool // open, and not looked up
	owned   map[string]int // open, by owner
}

func newConnLimit(log *zap.Logger) *connLimit {
	return &connLimit{
		log: log, warn: rate.Sometimes{Interval: time.Minute}, slots: make(chan struct{}, maxLookups), unknown: map[*Conn]bool{}, owned: map[string]int{},
	}
}

const maxLookups = 16

// add registers an accepted connection. It reports whether admit must be called, and may then wait for the admit of others.
func (l *connLimit) add(c *Conn) (check bool) {
	if l.register(c) {
		return false
	}
	l.slots <- struct{}{}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.waiting = true
	return true
}

// register reports whether the connection may stay without a lookup.
func (l *connLimit) register(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open++; c.Attached || l.open > l.least() && l.owner != nil {
		return false
	}
	l.unknown[c] = true
	return true
}

// release gives the slot of a connection to the next one. It may be called twice.
func (l *connLimit) release(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.waiting {
		c.waiting = false
		<-l.slots // never blocks: the connection has put it there
	}
}

// admit reports whether the connection may stay. If not, owner has too many.
func (l *connLimit) admit(c *Conn) (owner string, ok bool) {
	defer l.release(c)
	if owner = c.Owner(l.owner); owner == "" {
		return "", true
	}
	for _, other := range l.candidates(owner) {
		l.identify(other)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owned[owner] >= l.most(owner) {
		return owner, false
	}
	l.count(c, owner)
	return owner, true
}

func (l *connLimit) setLimits(limits map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
}

// most returns the bound of an owner. It needs the lock.
func (l *connLimit) most(owner string) int {
	if n := l.limits[owner]; n > 0 {
		return n
	}
	return maxOwned
}

// least returns the lowest bound of all owners: with fewer connections no lookup is necessary. It needs the lock.
func (l *connLimit) least() int {
	n := maxOwned
	for _, one := range l.limits {
		n = min(n, one)
	}
	return n
}

// candidates returns the connections that have to be looked up to know whether the owner has too many.
func (l *connLimit) candidates(owner string) (all []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owned[owner] >= l.most(owner) || l.owned[owner]+len(l.unknown) < l.most(owner) {
		return nil
	}
	for c := range l.unknown {
		all = append(all, c)
	}
	return all
}

func (l *connLimit) identify(c *Conn) {
	owner := c.Owner(l.owner)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.unknown[c] { // closed, or identified by another call
		return
	}
	delete(l.unknown, c)
	if owner != "" {
		l.count(c, owner)
	}
}

// count needs the lock.
func (l *connLimit) count(c *Conn, owner string) {
	if !c.closed {
		l.owned[owner]++
		c.counted = owner
	}
}

// remove unregisters a closed connection. It may be called twice.
func (l *connLimit) remove(c *Conn) {
	l.release(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	l.open--
	delete(l.unknown, c)
	if c.counted == "" {
		return
	}
	if l.owned[c.counted]--; l.owned[c.counted] == 0 {
		delete(l.owned, c.counted)
	}
}

// refusal is the response on a connection that is refused, before any request is read.
func (l *connLimit) refusal(owner string) []byte {
	l.mu.Lock()
	most := l.most(owner)
	l.mu.Unlock()
	l.warn.Do(func() {
		l.log.Warn("connections of a space refused", zap.String("space", owner), zap.Int("open", most))
	})
	text := fmt.Sprintf("The Space %s has %d connections to this host already. Close some of them, or reuse them.", owner, most)
	body, _ := json.Marshal(map[string]string{"detail": text}) // plain strings cannot fail
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nRetry-After: 1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable), len(body), body)
}
