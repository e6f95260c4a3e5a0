package people

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

	"spacehost/internal/identity"
)

// Denial forbids a Space to spend its visitors' seconds through other Spaces.
type Denial struct {
	Space    string
	Identity string // the Key of the one visitor whose seconds they are; "": everybody's
	At       time.Time
	By       string // who forbade it
}

// DelegationDeniedError refuses what a Space would spend through another.
type DelegationDeniedError struct {
	Space    string
	Identity string // as the Denial has it; "": everybody's
}

func (e *DelegationDeniedError) Error() string {
	return fmt.Sprintf("The operator has forbidden the Space %s to use its visitors' ZeroGPU quota at other Spaces.", e.Space)
}

// DelegationDenyList are all DelegationDenyList: the table via_stops. It may be used by many goroutines. Check asks memory alone; the others
// bring their own connection, so never call them with a transaction open.
type DelegationDenyList struct {
	Now func() time.Time // wall clock, set before the first use; nil is the real one

	db       *sql.DB
	changing sync.Mutex                           // from before the write until all is set
	all      atomic.Pointer[map[denialKey]Denial] // what is in the table
}

type denialKey struct{ space, identity string }

// OpenDelegationDenyList reads the DelegationDenyList in db, which migrations.Open has opened. There is one at a time for a database.
func OpenDelegationDenyList(ctx context.Context, db *sql.DB) (*DelegationDenyList, error) {
	s := &DelegationDenyList{db: db}
	return s, s.read(ctx)
}

// Check refuses with *DelegationDeniedError if payer's Via may not spend what is payer's.
func (s *DelegationDenyList) Check(payer identity.Identity) error {
	all := *s.all.Load()
	for _, identity := range []string{"", payer.Key()} {
		if _, stopped := all[denialKey{payer.Via, identity}]; stopped {
			return &DelegationDeniedError{Space: payer.Via, Identity: identity}
		}
	}
	return nil
}

// List is every Denial, by Space and identity.
func (s *DelegationDenyList) List() []Denial {
	return slices.SortedFunc(maps.Values(*s.all.Load()), func(a, b Denial) int {
		return strings.Compare(a.Space+"\x00"+a.Identity, b.Space+"\x00"+b.Identity)
	})
}

// Forbid adds a Denial, in force once it has returned: for one identity, or for all with "". What is forbidden already
// stays as it is.
func (s *DelegationDenyList) Forbid(ctx context.Context, space, identity, by string) error {
	return s.change(ctx, `INSERT INTO via_stops (space, identity, stopped_at, stopped_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		space, identity, s.now().UnixMilli(), by)
}

// Allow ends a Denial; without one it changes nothing. One for all ends alone: those for single identities stay.
func (s *DelegationDenyList) Allow(ctx context.Context, space, identity string) error {
	return s.change(ctx, `DELETE FROM via_stops WHERE space = ? AND identity = ?`, space, identity)
}

func (s *DelegationDenyList) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}
