package quota

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Refusal is a call that was refused by the quota.
type Refusal struct {
	At       time.Time
	Identity string // the owner of the quota
	Space    string
	Task     string // the function's name, if known
	Err      error  // a Refused
}

// Refused is an error with which Hold refuses a call by the rules of its account.
type Refused interface {
	error
	// Reason explains the refusal to a user.
	Reason() string
}

// AsRefused returns the refusal in err, if it is one.
func AsRefused(err error) (Refused, bool) {
	var refused Refused
	ok := errors.As(err, &refused)
	return refused, ok
}

// Bounds of Refusals.
const (
	maxRefusals    = 2_000
	maxPerIdentity = 10
)

// Refusals holds the last refusals since the start of the host, so that users can read the reason. The zero Refusals is
// empty. It may be used by many goroutines.
type Refusals struct {
	mu  sync.Mutex
	all []Refusal // oldest first
}

// Add adds a refusal. At the bound it replaces the identity's oldest refusal, or the oldest of all.
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
	case of >= maxPerIdentity:
		rs.all = slices.Delete(rs.all, first, first+1)
	case len(rs.all) >= maxRefusals:
		rs.all = slices.Delete(rs.all, 0, 1)
	}
	rs.all = append(rs.all, r)
}

// Of returns an identity's refusals, newest first.
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
