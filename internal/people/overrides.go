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

// Overrides is what a person has in place of their tier's; nil: as the tier. Package quota knows what it means.
type Overrides struct {
	Quota, Longest        *time.Duration
	Priority, Concurrency *int
}

// Change is what to change of a person. A field that is nil stays as it is.
type Change struct {
	Tier                  *string
	Quota, Longest        **time.Duration // of nil: as the tier again
	Priority, Concurrency **int
}

// Set changes a person, from their next call on. Errors: *UnknownPersonError, *ConfiguredPersonError.
func (p *Store) Set(ctx context.Context, name string, c Change) (person Person, err error) {
	err = p.change(ctx, "change person", func(tx *sql.Tx) error {
		if person, err = personOf(ctx, tx, name); err == nil {
			err = person.byOperator()
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
	return p
}

func set[T any](into *T, value *T) {
	if value != nil {
		*into = *value
	}
}

// write keeps tier and Overrides of a person who is there.
func write(ctx context.Context, tx *sql.Tx, p Person) error {
	_, err := tx.ExecContext(ctx, `UPDATE people SET tier = ?, quota_ms = ?, longest_ms = ?, priority = ?, concurrency = ? WHERE name = ?`,
		p.Tier, milliseconds(p.Overrides.Quota), milliseconds(p.Overrides.Longest), p.Overrides.Priority, p.Overrides.Concurrency, p.Name)
	return err
}

// milliseconds is a duration as SQL keeps it.
func milliseconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}

// OwnOf is what an identity has in place of its tier's. Only people can have something. It reads the database after a
// change only.
func (p *Store) OwnOf(ctx context.Context, id identity.Identity) (Overrides, error) {
	if id.Kind != identity.User {
		return Overrides{}, nil
	}
	all, err := p.owns.get(ctx, p.readOwns)
	return all[id.Name], err
}

// readOwns reads what OwnOf keeps.
func (p *Store) readOwns(ctx context.Context) (map[string]Overrides, error) {
	rows, err := p.questions().QueryContext(ctx, `SELECT `+personColumns+` FROM people
		WHERE coalesce(quota_ms, longest_ms, priority, concurrency) IS NOT NULL`)
	people, err := sqlrows.Collect(rows, err, "read allowances", scanPerson)
	owns := make(map[string]Overrides, len(people))
	for _, person := range people {
		owns[person.Name] = person.Overrides
	}
	return owns, err
}

// span is an optional duration as SQL keeps it.
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

// errNothing refuses a change that changes nothing.
var errNothing = errors.New("nothing to change")

// Check refuses a change that changes nothing, or to what cannot be.
func (c Change) Check() error {
	for what, d := range map[string]**time.Duration{"quota": c.Quota, "longest": c.Longest} {
		if d != nil && *d != nil && (**d < time.Second || **d > mostOwn) {
			return fmt.Errorf("%s must be from 1s to %v, and not %v", what, mostOwn, **d)
		}
	}
	for what, n := range map[string]struct {
		given **int
		most  int
	}{"priority": {c.Priority, mostRank}, "concurrency": {c.Concurrency, mostAtOnce}} {
		if n.given != nil && *n.given != nil && (**n.given < 0 || **n.given > n.most) {
			return fmt.Errorf("%s must be from 0 to %d, and not %d", what, n.most, **n.given)
		}
	}
	if c == (Change{}) {
		return errNothing
	}
	return nil
}

// Bounds of what a person may be given, as a tier has them.
const (
	mostOwn    = 10_000 * time.Hour
	mostRank   = 100
	mostAtOnce = 1000
)
