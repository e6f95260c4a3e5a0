package people

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/sqlrows"
)

// maxOwnTokens bounds the tokens that a person may create within 24 hours, because revoked ones stay in the database for a time.
const maxOwnTokens = 200

// DeclaredTokenError refuses to revoke a token that the configuration declares, by its person.
type DeclaredTokenError struct{ ID string }

func (e *DeclaredTokenError) Error() string {
	return fmt.Sprintf("token %s is declared in the configuration of this host and is changed there; ask an admin to revoke it (spacehost token revoke %[1]s)", e.ID)
}

// NoPersonError refuses tokens of a visitor without a name.
type NoPersonError struct{ Who identity.Identity }

func (e *NoPersonError) Error() string {
	return fmt.Sprintf("%s is no person of this host and has no tokens; add one with `spacehost user add NAME`, then `spacehost token create NAME`", e.Who)
}

// CreateOwnToken creates a token for the person of proof, with Rights that those of proof's token allow. Unlike CreateToken it also
// serves people of the configuration: their tokens stay valid until the file drops the person. Errors: those of CreateToken,
// *NoPersonError, *RightsError, *UnknownTokenError if proof's token has ended since.
func (s *Store) CreateOwnToken(ctx context.Context, proof Proof, label string, rights Rights) (text string, t Token, err error) {
	if proof.Who.Kind != identity.User {
		return "", Token{}, &NoPersonError{proof.Who}
	}
	return s.createTokenBy(ctx, proof, proof.Who.Name, label, rights, func(tx *sql.Tx, p Person) error {
		if p.Source == Former {
			return p.checkSource()
		}
		var created int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE person = ? AND declared = 0 AND created_at > ?`,
			p.Name, s.now().Add(-24*time.Hour).UnixMilli()).Scan(&created)
		if err == nil && created >= maxOwnTokens {
			err = &TooManyTokensError{Person: p.Name, Most: maxOwnTokens, Daily: true}
		}
		return err
	})
}

// CreateTokenBy is CreateToken by an admin with proof, whose Rights must allow those of the new token. Errors: those of CreateToken,
// *RightsError, *UnknownTokenError if proof's token has ended since.
func (s *Store) CreateTokenBy(ctx context.Context, proof Proof, person, label string, rights Rights) (text string, t Token, err error) {
	return s.createTokenBy(ctx, proof, person, label, rights, operatorsOwn)
}

// createTokenBy checks the token of proof in the transaction of the new token: a token that is revoked at the same time creates none.
func (s *Store) createTokenBy(ctx context.Context, proof Proof, person, label string, rights Rights, admit func(*sql.Tx, Person) error) (text string, t Token, err error) {
	if err := proof.rights.Allow(rights); err != nil {
		return "", Token{}, err
	}
	return s.createToken(ctx, Token{Person: person, Label: label, Rights: rights, CreatedBy: proof.token}, func(tx *sql.Tx, p Person) error {
		if err := s.checkToken(ctx, tx, proof); err != nil {
			return err
		}
		return admit(tx, p)
	})
}

// OwnTokens returns the tokens of the person of proof, as Tokens does, and the ID of the one that proof is from. Errors:
// *NoPersonError.
func (s *Store) OwnTokens(ctx context.Context, proof Proof) (all []Token, current string, err error) {
	if proof.Who.Kind != identity.User {
		return nil, "", &NoPersonError{proof.Who}
	}
	all, err = s.Tokens(ctx, proof.Who.Name)
	return all, proof.token, err
}

// RevokeOwn revokes a token of the person of proof, as Revoke does. Errors: *UnknownTokenIDError, also for a token of another person;
// *DeclaredTokenError; *NoPersonError.
func (s *Store) RevokeOwn(ctx context.Context, proof Proof, id string) (t Token, changed bool, err error) {
	all, _, err := s.OwnTokens(ctx, proof)
	if err != nil {
		return Token{}, false, err
	}
	for _, t := range all {
		switch {
		case t.ID == id && t.Declared:
			return Token{}, false, &DeclaredTokenError{id}
		case t.ID == id && !t.RevokedAt.IsZero():
			return t, false, nil
		case t.ID == id:
			return s.Revoke(ctx, id)
		}
	}
	return Token{}, false, &UnknownTokenIDError{ID: redact(id)}
}

// Activity is what the tokens of a person show of it.
type Activity struct {
	Tokens     int       // valid ones
	LastSeenAt time.Time // the latest use of any token, to the minute; zero: never
}

// Activity returns the Activity of each person that has had a token, by name.
func (s *Store) Activity(ctx context.Context) (map[string]Activity, error) {
	type row struct {
		person string
		Activity
	}
	rows, err := s.reader().QueryContext(ctx, `SELECT person, count(*) FILTER (WHERE revoked_at IS NULL AND coalesce(expires_at > ?, 1)), max(last_used_at)
		FROM tokens GROUP BY person`, s.now().UnixMilli())
	all, err := sqlrows.Collect(rows, err, "read activity of people", func(r sqlrows.Scanner) (one row, err error) {
		err = r.Scan(&one.person, &one.Tokens, (*instant)(&one.LastSeenAt))
		return one, err
	})
	activity := make(map[string]Activity, len(all))
	for _, one := range all {
		activity[one.person] = one.Activity
	}
	return activity, err
}

// expiryInterval bounds the time after which an expired token ends what it has opened.
const expiryInterval = 500 * time.Millisecond

// EndExpired calls Ended after a token has expired, until ctx ends. ByToken refuses an expired token without it.
func (s *Store) EndExpired(ctx context.Context) {
	tick := time.NewTicker(expiryInterval)
	defer tick.Stop()
	for seen := s.now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			seen = s.endExpired(ctx, seen)
		}
	}
}

// endExpired calls Ended if a token has expired after seen. It returns the time up to which it has looked.
func (s *Store) endExpired(ctx context.Context, seen time.Time) time.Time {
	stored, err := s.bearers.get(ctx, s.readBearers)
	if err != nil { // the next tick tries again
		return seen
	}
	now := s.now()
	for _, b := range stored {
		if at := b.rights.ExpiresAt; !b.revoked && b.rights.isExpired(now) && at.After(seen) {
			if s.Ended != nil {
				s.Ended()
			}
			break
		}
	}
	return now
}
