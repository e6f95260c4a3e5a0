package quota

import (
	"slices"
	"sync"
	"time"
)

// Refusal is a call that the quota did not allow.
type Refusal struct {
	At       time.Time
	Identity string // whose quota it was
	Space    string // where
	Task     string // the function's name, as far as it is known
	Err      error  // *ExceededError or *IllegalDurationError
}

// Bounds of what is remembered.
const (
	maxRefusals = 2_000
	maxOfOne    = 10
)

// Refusals remembers the last ones of this start, so that whoever was refused can read why. The zero Refusals is empty;
// it may be used by many goroutines.
type Refusals struct {
	mu  sync.Mutex
	all []Refusal // oldest first
}

// Add remembers a refusal in place of the same identity's oldest, or of everybody's.
func (rs *Refusals) Add(r Refusal) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	first, of := -1, 0
	for i, other := range rs.all {
		if other.Identity == r.Identity {
			if of++; first < 0 {
				first = i
			}
		}
	}
	switch {
	case of >= maxOfOne:
		rs.all = slices.Delete(rs.all, first, first+1)
	case len(rs.all) >= maxRefusals:
		rs.all = slices.Delete(rs.all, 0, 1)
	}
	rs.all = append(rs.all, r)
}

// Of are an identity's, newest first.
func (rs *Refusals) Of(identity string) (found []Refusal) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range slices.Backward(rs.all) {
		if r.Identity == identity {
			found = append(found, r)
		}
	}
	return found
}
