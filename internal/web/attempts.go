package web

import (
	"sync"
	"time"

	"spacehost/internal/identity"
)

// Attempts is a rate limit on wrong guesses per client address. Use NewAttempts: the zero value is not ready. It may be
// used by many goroutines.
type Attempts struct {
	most   int
	within time.Duration
	now    func() time.Time

	mu    sync.Mutex
	wrong map[string]failures
}

type failures struct {
	count int
	since time.Time
}

// maxClients bounds the remembered addresses. A limit per address does not stop a client with more addresses.
const maxClients = 10_000

// NewAttempts returns Attempts that allow most wrong guesses per address within a duration. now is the wall clock; nil is
// the real one.
func NewAttempts(most int, within time.Duration, now func() time.Time) *Attempts {
	if now == nil {
		now = time.Now
	}
	return &Attempts{most: most, within: within, now: now, wrong: map[string]failures{}}
}

// Allow reports whether the client at remoteAddr may guess again. IPv6 addresses count by their /64.
func (a *Attempts) Allow(remoteAddr string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.wrong[clientKey(remoteAddr)]
	return g.count < a.most || a.isOver(g)
}

// Wrong counts a wrong guess.
func (a *Attempts) Wrong(remoteAddr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep()
	key := clientKey(remoteAddr)
	g := a.wrong[key]
	if g.count == 0 || a.isOver(g) {
		g = failures{since: a.now()}
	}
	g.count++
	a.wrong[key] = g
}

func (a *Attempts) isOver(g failures) bool {
	age := a.now().Sub(g.since)
	return age >= a.within || age < 0 // negative: the clock has stepped back
}

func (a *Attempts) sweep() {
	if len(a.wrong) < maxClients {
		return
	}
	for key, g := range a.wrong {
		if a.isOver(g) {
			delete(a.wrong, key)
		}
	}
	if len(a.wrong) >= maxClients {
		clear(a.wrong)
	}
}

// clientKey returns the key under which the wrong guesses of an address are counted.
func clientKey(remoteAddr string) string {
	addr, err := identity.ParseAddr(remoteAddr)
	if err != nil {
		return ""
	}
	if addr.IsLoopback() {
		return "loopback"
	}
	return identity.Network(addr)
}
