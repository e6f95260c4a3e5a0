package web

import (
	"sync"
	"time"

	"spacehost/internal/identity"
)

// Attempts counts the wrong guesses of each visitor, and says when it is enough. The zero value is not ready: use
// NewAttempts. It may be used by many goroutines.
type Attempts struct {
	most   int
	within time.Duration
	now    func() time.Time

	mu    sync.Mutex
	wrong map[string]guesses
}

type guesses struct {
	count int
	since time.Time
}

// maxGuessers bounds what is remembered. Whoever has so many addresses is not held by a count of each.
const maxGuessers = 10_000

// NewAttempts lets each visitor be wrong most times within a span; now is the wall clock, nil the real one.
func NewAttempts(most int, within time.Duration, now func() time.Time) *Attempts {
	if now == nil {
		now = time.Now
	}
	return &Attempts{most: most, within: within, now: now, wrong: map[string]guesses{}}
}

// Allow reports whether whoever calls from remoteAddr may guess again. IPv6 addresses count by their /64.
func (a *Attempts) Allow(remoteAddr string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.wrong[guesser(remoteAddr)]
	return g.count < a.most || a.isOver(g)
}

// Wrong counts a guess that was none.
func (a *Attempts) Wrong(remoteAddr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweep()
	key := guesser(remoteAddr)
	g := a.wrong[key]
	if g.count == 0 || a.isOver(g) {
		g = guesses{since: a.now()}
	}
	g.count++
	a.wrong[key] = g
}

func (a *Attempts) isOver(g guesses) bool {
	age := a.now().Sub(g.since)
	return age >= a.within || age < 0 // or the clock has stepped back
}

func (a *Attempts) sweep() {
	if len(a.wrong) < maxGuessers {
		return
	}
	for key, g := range a.wrong {
		if a.isOver(g) {
			delete(a.wrong, key)
		}
	}
	if len(a.wrong) >= maxGuessers {
		clear(a.wrong)
	}
}

// guesser is whom a wrong guess is counted against.
func guesser(remoteAddr string) string {
	addr, err := identity.ParseAddr(remoteAddr)
	if err != nil {
		return ""
	}
	if addr.IsLoopback() {
		return "loopback"
	}
	return identity.Network(addr)
}
