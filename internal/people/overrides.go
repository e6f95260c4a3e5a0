package people

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/sqlrows"
)

// Overrides are values of a person that replace those of the tier; nil: as the tier. Package quota applies them.
type Overrides struct {
	Quota, Longest              *time.Duration
	Priority, Concurrency, Runs *int
}

// Change is a change of a person. A nil field is not changed.
type Change struct {
	Tier                        *string
	Quota, Longest              **time.Duration // pointer to nil: as the tier again
	Priority, Concurrency, Runs **int
}

// Set changes a person from the next call on. Errors: *UnknownPersonError, *ConfiguredPersonError.
func (s *Store) Set(ctx context.Context, name string, c Change) (person Person, err error) {
	err = s.change(ctx, "change person", func(tx *sql.Tx) error {
		if person, err = personOf(ctx, tx, name); err == nil {
			err = person.checkSource()
		}
		if err != nil {
			return err
		}
		person = c.of(person)
		return write(ctx, tx, person)
	})
	return person, err
}

func (c Change) of(p Person) Person {
	set(&p.Tier, c.Tier)
	set(&p.Overrides.Quota, c.Quota)
	set(&p.Overrides.Longest, c.Longest)
	set(&p.Overrides.Priority, c.Priority)
	set(&p.Overrides.Concurrency, c.Concurrency)
	set(&p.Overrides.Runs, c.Runs)
	return p
}

func set[T any](into *T, value *T) {
	if value != nil {
		*into = *value
	}
}

// write stores the tier and Overrides of an existing person.
func write(ctx context.Context, tx *sql.Tx, p Person) error {
	_, err := tx.ExecContext(ctx, `UPDATE people SET tier = ?, quota_ms = ?, longest_ms = ?, priority = ?, concurrency = ?, runs = ? WHERE name = ?`,
		p.Tier, milliseconds(p.Overrides.Quota), milliseconds(p.Overrides.Longest), p.Overrides.Priority, p.Overrides.Concurrency, p.Overrides.Runs, p.Name)
	return err
}

// milliseconds returns a duration as stored in SQL.
func milliseconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}

// OverridesOf returns the Overrides of an identity. Only persons have Overrides. It reads the database only after a
// change.
func (s *Store) OverridesOf(ctx context.Context, id identity.Identity) (Overrides, error) {
	if id.Kind != identity.User {
		return Overrides{}, nil
	}
	all, err := s.overrides.get(ctx, s.readOverrides)
	return all[id.Name], err
}

// readOverrides reads the Overrides that OverridesOf caches.
func (s *Store) readOverrides(ctx context.Context) (map[string]Overrides, error) {
	rows, err := s.reader().QueryContext(ctx, `SELECT `+personColumns+` FROM people
		WHERE coalesce(quota_ms, longest_ms, priority, concurrency, runs) IS NOT NULL`)
	people, err := sqlrows.Collect(rows, err, "read overrides", scanPerson)
	overrides := make(map[string]Overrides, len(people))
	for _, person := range people {
		overrides[person.Name] = person.Overrides
	}
	return overrides, err
}

// span is an optional duration as stored in SQL.
type span struct{ into **time.Duration }

// Scan implements sql.Scanner.
func (s span) Scan(value any) error {
	switch ms := value.(type) {
	case nil:
		*s.into = nil
	case int64:
		d := time.Duration(ms) * time.Millisecond
		*s.into = &d
	default:
		return fmt.Errorf("a duration is %T, want an integer", value)
	}
	return nil
}

// errNothing refuses an empty Change.
var errNothing = errors.New("nothing to change")

// Check returns an error for an empty Change or a value out of bounds.
func (c Change) Check() error {
	for what, d := range map[string]**time.Duration{"quota": c.Quota, "longest": c.Longest} {
		if d != nil && *d != nil && (**d < time.Second || **d > maxOverride) {
			return fmt.Errorf("%s must be from 1s to %v, and not %v", what, maxOverride, **d)
		}
	}
	for what, n := range map[string]struct {
		given **int
		most  int
	}{"priority": {c.Priority, maxPriority}, "concurrency": {c.Concurrency, maxConcurrency}, "runs": {c.Runs, maxRuns}} {
		if n.given != nil && *n.given != nil && (**n.given < 0 || **n.given > n.most) {
			return fmt.Errorf("%s must be from 0 to %d, and not %d", what, n.most, **n.given)
		}
	}
	if c == (Change{}) {
		return errNothing
	}
	return nil
}

// Bounds of overrides, equal to those of a tier.
const (
	maxOverride    = 10_000 * time.Hour
	maxPriority    = 100
	maxConcurrency = 1000
	maxRuns        = 100_000
)
