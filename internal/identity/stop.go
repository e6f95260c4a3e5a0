package identity

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Stop forbids a Space to spend its visitors' seconds through other Spaces.
type Stop struct {
	Space    string
	Identity string // the Key of the one visitor whose seconds they are; "": everybody's
	At       time.Time
	By       string // who forbade it
}

// StoppedError refuses what a Space would spend through another.
type StoppedError struct {
	Space    string
	Identity string // as the Stop has it; "": everybody's
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("The operator has forbidden the Space %s to use its visitors' ZeroGPU quota at other Spaces.", e.Space)
}

// Stops are all Stops: the table via_stops. It may be used by many goroutines. Check asks memory alone; the others
// bring their own connection, so never call them with a transaction open.
type Stops struct {
	Now func() time.Time // wall clock, set before the first use; nil is the real one

	db       *sql.DB
	changing sync.Mutex                       // from before the write until all is set
	all      atomic.Pointer[map[stopKey]Stop] // what is in the table
}

type stopKey struct{ space, identity string }

// OpenStops reads the Stops in db, which migrations.Open has opened. There is one at a time for a database.
func OpenStops(ctx context.Context, db *sql.DB) (*Stops, error) {
	s := &Stops{db: db}
	return s, s.read(ctx)
}

// Check refuses with *StoppedError if payer's Via may not spend what is payer's.
func (s *Stops) Check(payer Identity) error {
	all := *s.all.Load()
	for _, identity := range []string{"", payer.Key()} {
		if _, stopped := all[stopKey{payer.Via, identity}]; stopped {
			return &StoppedError{Space: payer.Via, Identity: identity}
		}
	}
	return nil
}

// List is every Stop, by Space and identity.
func (s *Stops) List() []Stop {
	return slices.SortedFunc(maps.Values(*s.all.Load()), func(a, b Stop) int {
		return strings.Compare(a.Space+"\x00"+a.Identity, b.Space+"\x00"+b.Identity)
	})
}

// Forbid adds a Stop, in force once it has returned: for one identity, or for all with "". What is forbidden already
// stays as it is.
func (s *Stops) Forbid(ctx context.Context, space, identity, by string) error {
	return s.change(ctx, `INSERT INTO via_stops (space, identity, stopped_at, stopped_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		space, identity, s.now().UnixMilli(), by)
}

// Allow ends a Stop; without one it changes nothing. One for all ends alone: those for single identities stay.
func (s *Stops) Allow(ctx context.Context, space, identity string) error {
	return s.change(ctx, `DELETE FROM via_stops WHERE space = ? AND identity = ?`, space, identity)
}

func (s *Stops) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}
