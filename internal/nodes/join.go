package nodes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"spacehost/internal/placement"
)

const (
	// MaxUses bounds the uses of a join token that is not unlimited.
	MaxUses = 1000
	// MaxLife bounds the life of a join token.
	MaxLife = 365 * 24 * time.Hour
	// keepEnded is how long an expired or used join token is known, so that an agent that uses it reads the right reason.
	keepEnded = 30 * 24 * time.Hour
)

// CheckName refuses what cannot be the name of a node. Errors: *BadNameError.
func CheckName(name string) error {
	if err := placement.CheckWord(name); err != nil {
		return &BadNameError{err}
	}
	if name == placement.Host {
		return &BadNameError{fmt.Errorf("the name %s is that of the front's own machine; choose another name for the node", name)}
	}
	return nil
}

// Pattern is the name for which a join token is valid, or a prefix and *, such as slurm-*. * alone stands for every name.
type Pattern string

// Check refuses what is no Pattern. Errors: *BadNameError.
func (p Pattern) Check() error {
	prefix, open := strings.CutSuffix(string(p), "*")
	if open { // any next character completes the name
		prefix += "0"
	}
	return CheckName(prefix)
}

// Matches reports whether a node of that name may join.
func (p Pattern) Matches(name string) bool {
	prefix, open := strings.CutSuffix(string(p), "*")
	return name == string(p) || open && strings.HasPrefix(name, prefix)
}

// JoinSpec describes a new join token.
type JoinSpec struct {
	ID    string // public
	Hash  Hash
	Names Pattern
	Uses  int           // how many nodes may join; 0: any number
	Life  time.Duration // from now on
	By    string        // the operator
}

// Hash is the SHA-256 of the secret of a join token.
type Hash = [32]byte

// CreateJoin stores a join token and returns when it expires. Errors: *BadNameError, *BadTokenError.
func (s *Store) CreateJoin(ctx context.Context, spec JoinSpec) (expires time.Time, err error) {
	if err := spec.check(); err != nil {
		return time.Time{}, err
	}
	now := s.now()
	expires = now.Add(spec.Life).Truncate(time.Millisecond).UTC()
	return expires, s.within(ctx, "create join token", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM joins WHERE expires_at < ?`, now.Add(-keepEnded).UnixMilli()); err != nil {
			return fmt.Errorf("delete expired join tokens: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO joins (id, hash, names, uses, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			spec.ID, spec.Hash[:], string(spec.Names), spec.Uses, now.UnixMilli(), spec.By, expires.UnixMilli()); err != nil {
			return fmt.Errorf("store join token: %w", err)
		}
		return nil
	})
}

func (s JoinSpec) check() error {
	if s.Uses < 0 || s.Uses > MaxUses {
		return &BadTokenError{fmt.Sprintf("a join token cannot have %d uses; give a number from 1 to %d, or 0 for any number", s.Uses, MaxUses)}
	}
	if s.Life < time.Second || s.Life > MaxLife {
		return &BadTokenError{fmt.Sprintf("a join token cannot be valid for %s; give a time from 1s to %dd", s.Life, MaxLife/(24*time.Hour))}
	}
	return s.Names.Check()
}

// Redeem lets a node join with the hash of a join token, and counts one use of it. A repetition with the same token, name and key
// changes nothing, so that an agent that has not got the answer may try again. Errors: *JoinError, *BadNameError.
func (s *Store) Redeem(ctx context.Context, hash Hash, name string, key Fingerprint) (n Node, err error) {
	if err := CheckName(name); err != nil {
		return Node{}, err
	}
	err = s.within(ctx, "join node "+name, func(tx *sql.Tx) error {
		t, err := tokenOf(ctx, tx, hash)
		if err != nil {
			return err
		}
		if err := t.admits(name); err != nil {
			return err
		}
		n, err = get(ctx, tx, name)
		unknown := (*UnknownError)(nil)
		isNew := errors.As(err, &unknown)
		if err != nil && !isNew {
			return err
		}
		if !isNew && n.Fingerprint == key && n.RevokedAt.IsZero() {
			return nil // a repetition
		}
		if err := t.isValid(s.now()); err != nil {
			return err
		}
		if !isNew {
			return nameTaken(n)
		}
		n = Node{Name: name, Fingerprint: key, JoinedAt: s.now().Truncate(time.Millisecond).UTC(), JoinedBy: t.by, Labels: []string{}}
		return t.use(ctx, tx, n)
	})
	return n, err
}

func nameTaken(n Node) error {
	if !n.RevokedAt.IsZero() {
		return refuseJoin(NameRevoked, "node %s was revoked; run `spacehost node forget %s` on the front first, or join under another name", n.Name, n.Name)
	}
	return refuseJoin(NameTaken, "a node named %s has joined already; choose another name, or run `spacehost node forget %s` on the front first", n.Name, n.Name)
}

// joinToken is a row of joins.
type joinToken struct {
	id, by     string
	names      Pattern
	uses, used int
	expires    time.Time
}

func tokenOf(ctx context.Context, tx *sql.Tx, hash Hash) (t joinToken, err error) {
	var expires int64
	err = tx.QueryRowContext(ctx, `SELECT id, names, uses, used, created_by, expires_at FROM joins WHERE hash = ?`, hash[:]).Scan(&t.id, &t.names, &t.uses, &t.used, &t.by, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return t, refuseJoin(TokenUnknown, "the front does not know this join token; it was mistyped, is of another front, or expired long ago; "+newToken)
	}
	if err != nil {
		return t, fmt.Errorf("read join token: %w", err)
	}
	t.expires = time.UnixMilli(expires).UTC()
	return t, nil
}

func (t joinToken) admits(name string) error {
	if !t.names.Matches(name) {
		return refuseJoin(NameRefused, "this join token is for the name %s, not %s; give --name, or %s", t.names, name, newToken)
	}
	return nil
}

func (t joinToken) isValid(now time.Time) error {
	switch {
	case t.uses > 0 && t.used >= t.uses:
		return refuseJoin(TokenUsed, "this join token was used already; "+newToken)
	case !now.Before(t.expires):
		return refuseJoin(TokenExpired, "this join token expired at %s; %s", t.expires.Format(time.RFC3339), newToken)
	}
	return nil
}

func (t joinToken) use(ctx context.Context, tx *sql.Tx, n Node) error {
	if _, err := tx.ExecContext(ctx, `UPDATE joins SET used = used + 1 WHERE id = ?`, t.id); err != nil {
		return fmt.Errorf("count the use of join token %s: %w", t.id, err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO nodes (name, fingerprint, joined_at, joined_by, token) VALUES (?, ?, ?, ?, ?)`,
		n.Name, n.Fingerprint[:], n.JoinedAt.UnixMilli(), n.JoinedBy, t.id); err != nil {
		return fmt.Errorf("store node %s: %w", n.Name, err)
	}
	return nil
}
