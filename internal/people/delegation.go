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
	"spacehost/internal/sqlrows"
)

// Denial forbids a Space to spend its visitors' quota through other Spaces.
type Denial struct {
	Space    string
	Identity string // Key of the one visitor that it protects; "": all visitors
	At       time.Time
	By       string // the operator
}

// DelegationDeniedError refuses a call that a Space makes on behalf of a visitor through another Space.
type DelegationDeniedError struct {
	Space    string
	Identity string // of the Denial; "": all visitors
}

func (e *DelegationDeniedError) Error() string {
	return fmt.Sprintf("The operator has forbidden the Space %s to use its visitors' ZeroGPU quota at other Spaces.", e.Space)
}

// DelegationDenyList holds all Denials, which are the table via_stops. It may be used by many goroutines. Check reads
// only memory. The other methods take a connection from the pool: never call them with a transaction open.
type DelegationDenyList struct {
	Now func() time.Time // wall clock, set before the first use; nil is the real one

	db       *sql.DB
	changing sync.Mutex                           // held from before a write until all is replaced
	all      atomic.Pointer[map[denialKey]Denial] // the rows of the table
}

type denialKey struct{ space, identity string }

// OpenDelegationDenyList reads the list in db, which migrations.Open has opened. Only one may be open per database.
func OpenDelegationDenyList(ctx context.Context, db *sql.DB) (*DelegationDenyList, error) {
	d := &DelegationDenyList{db: db}
	return d, d.read(ctx)
}

// Check returns a *DelegationDeniedError if the Space payer.Via may not spend payer's quota.
func (d *DelegationDenyList) Check(payer identity.Identity) error {
	all := *d.all.Load()
	for _, identity := range []string{"", payer.Key()} {
		if _, denied := all[denialKey{payer.Via, identity}]; denied {
			return &DelegationDeniedError{Space: payer.Via, Identity: identity}
		}
	}
	return nil
}

// List returns all Denials by Space and identity.
func (d *DelegationDenyList) List() []Denial {
	return slices.SortedFunc(maps.Values(*d.all.Load()), func(a, b Denial) int {
		return strings.Compare(a.Space+"\x00"+a.Identity, b.Space+"\x00"+b.Identity)
	})
}

// Forbid adds a Denial for one identity, or for all with "". It is in force once Forbid has returned. An existing Denial
// is not changed.
func (d *DelegationDenyList) Forbid(ctx context.Context, space, identity, by string) error {
	return d.change(ctx, `INSERT INTO via_stops (space, identity, stopped_at, stopped_by) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		space, identity, d.now().UnixMilli(), by)
}

// Allow deletes a Denial, if there is one. Deleting the Denial for all identities keeps those for single identities.
func (d *DelegationDenyList) Allow(ctx context.Context, space, identity string) error {
	return d.change(ctx, `DELETE FROM via_stops WHERE space = ? AND identity = ?`, space, identity)
}

func (d *DelegationDenyList) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

// change executes one statement and reads the table again for Check.
func (d *DelegationDenyList) change(ctx context.Context, statement string, values ...any) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	if _, err := d.db.ExecContext(ctx, statement, values...); err != nil {
		return fmt.Errorf("change delegation deny list: %w", err)
	}
	return d.read(context.WithoutCancel(ctx)) // the change is committed, so read even if the caller has gone
}

func (d *DelegationDenyList) read(ctx context.Context) error {
	rows, err := d.db.QueryContext(ctx, `SELECT space, identity, stopped_at, stopped_by FROM via_stops`)
	list, err := sqlrows.Collect(rows, err, "read delegation deny list", scanDenial)
	if err != nil {
		return err
	}
	all := make(map[denialKey]Denial, len(list))
	for _, denial := range list {
		all[denialKey{denial.Space, denial.Identity}] = denial
	}
	d.all.Store(&all)
	return nil
}

func scanDenial(row sqlrows.Scanner) (s Denial, err error) {
	err = row.Scan(&s.Space, &s.Identity, (*instant)(&s.At), &s.By)
	return s, err
}
