package people

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/nearest"
	"spacehost/internal/sqlrows"
)

// Store keeps the named users, their bearer tokens and their signed-in browsers in the tables people, tokens and
// sign_ins. It may be used by many goroutines.
//
// Its methods take a connection from the pool, which has only one: never call them with a transaction open. Close the
// Store before the database.
type Store struct {
	Now   func() time.Time // wall clock, set before the first use; nil is the real one
	Reads *sql.DB          // handle of migrations.OpenReads, set before the first use; nil: the writing handle
	// Ended is called after each commit that may have revoked tokens, outside of any lock; set before the first use, may be nil.
	Ended func()

	db        *sql.DB
	lastUsed  lastUsedWriter
	bearers   cache[map[digest]*bearer]
	overrides cache[map[string]Overrides]
	signIns   cache[map[digest]*signIn]
}

// NewStore returns the Store in db, which migrations.Open has opened.
func NewStore(db *sql.DB) *Store { return &Store{db: db} }

// Add creates a person; by names the operator. Errors: *BadNameError, *DuplicatePersonError, *ConfiguredPersonError. The
// caller checks that the tier exists. A former person becomes the operator's and keeps the account.
func (s *Store) Add(ctx context.Context, name, tier, by string) (Person, error) {
	if err := CheckName(name); err != nil {
		return Person{}, err
	}
	defer s.overrides.reset()
	person := Person{Name: name, Tier: tier, CreatedAt: s.now(), CreatedBy: by, Source: Operator}
	result, err := s.db.ExecContext(ctx, `INSERT INTO people (name, tier, created_at, created_by, source) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, created_by = excluded.created_by, source = excluded.source,
		quota_ms = NULL, longest_ms = NULL, priority = NULL, concurrency = NULL, runs = NULL
		WHERE source = 'former'`, name, tier, person.CreatedAt.UnixMilli(), by, Operator)
	if err != nil {
		return Person{}, fmt.Errorf("add person %s: %w", name, err)
	}
	added, err := result.RowsAffected()
	if err != nil {
		return Person{}, fmt.Errorf("add person %s: %w", name, err)
	}
	if added == 0 {
		return Person{}, s.nameTaken(ctx, name)
	}
	return person, nil
}

// nameTaken returns the error for a name that is already in use.
func (s *Store) nameTaken(ctx context.Context, name string) error {
	person, err := s.Get(ctx, name)
	if err == nil {
		err = person.checkSource()
	}
	if err == nil {
		err = &DuplicatePersonError{Name: name}
	}
	return err
}

// SetTier changes a person's tier from the next call on. Errors: *UnknownPersonError, *ConfiguredPersonError.
func (s *Store) SetTier(ctx context.Context, name, tier string) (Person, error) {
	return s.Set(ctx, name, Change{Tier: &tier})
}

// Remove revokes all tokens of a person of the operator for good, and calls Ended. The account stays in the ledger, and is theirs
// again if the person is added again. Errors: *UnknownPersonError, *ConfiguredPersonError.
func (s *Store) Remove(ctx context.Context, name string) (p Person, err error) {
	err = s.changeEnding(ctx, "remove person", func(tx *sql.Tx) error {
		if p, err = personOf(ctx, tx, name); err != nil {
			return err
		}
		if err := p.checkSource(); err != nil {
			return err
		}
		p.Source = Former
		if _, err := tx.ExecContext(ctx, `UPDATE people SET source = ? WHERE name = ?`, Former, name); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = coalesce(revoked_at, ?), revoked_by_command = 1 WHERE person = ?`, s.now().UnixMilli(), name)
		return err
	})
	return p, err
}

// List returns all persons by name.
func (s *Store) List(ctx context.Context) ([]Person, error) {
	rows, err := s.reader().QueryContext(ctx, `SELECT `+personColumns+` FROM people ORDER BY name`)
	return sqlrows.Collect(rows, err, "list people", scanPerson)
}

// Get returns one person. Errors: *UnknownPersonError.
func (s *Store) Get(ctx context.Context, name string) (Person, error) {
	return personOf(ctx, s.reader(), name)
}

// CreateToken creates a token for a person of the operator. Its text is returned only here. Errors: *UnknownPersonError,
// *ConfiguredPersonError, *BadLabelError, *BadRightsError, *TooManyTokensError.
func (s *Store) CreateToken(ctx context.Context, person, label string, rights Rights) (text string, t Token, err error) {
	return s.createToken(ctx, Token{Person: person, Label: label, Rights: rights}, operatorsOwn)
}

// operatorsOwn admits people whom the operator manages.
func operatorsOwn(_ *sql.Tx, p Person) error { return p.checkSource() }

// createToken creates the token t if admit allows it for the person.
func (s *Store) createToken(ctx context.Context, t Token, admit func(*sql.Tx, Person) error) (text string, made Token, err error) {
	if err := checkLabel(t.Label); err != nil {
		return "", Token{}, err
	}
	if err := t.Rights.check(s.now()); err != nil {
		return "", Token{}, err
	}
	if at := t.Rights.ExpiresAt; !at.IsZero() {
		t.Rights.ExpiresAt = time.UnixMilli(at.UnixMilli()).UTC()
	}
	text, t.ID, t.CreatedAt = newToken(), newTokenID(), s.now()
	err = s.change(ctx, "create token", func(tx *sql.Tx) error {
		known, err := personOf(ctx, tx, t.Person)
		if err == nil {
			err = admit(tx, known)
		}
		if err == nil {
			err = s.checkTokenLimit(ctx, tx, t.Person)
		}
		if err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(text))
		scope, spaces, expiresAt := t.Rights.columns()
		_, err = tx.ExecContext(ctx, `INSERT INTO tokens (id, person, hash, label, created_at, scope, spaces, expires_at, created_by)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, nullif(?, ''))`, t.ID, t.Person, hash[:], t.Label, t.CreatedAt.UnixMilli(), scope, spaces, expiresAt, t.CreatedBy)
		return err
	})
	if err != nil {
		return "", Token{}, err
	}
	return text, t, nil
}

// checkTokenLimit returns an error if the person may not have another token.
func (s *Store) checkTokenLimit(ctx context.Context, tx *sql.Tx, person string) error {
	var live int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE person = ? AND revoked_at IS NULL AND coalesce(expires_at > ?, 1)`,
		person, s.now().UnixMilli()).Scan(&live)
	if err == nil && live >= maxTokens {
		err = &TooManyTokensError{Person: person, Most: maxTokens}
	}
	return err
}

// Revoke revokes a token, whichever way it was declared, and calls Ended. ByToken refuses the token once Revoke has returned.
// A token of the configuration stays revoked even if the file still declares it. A second call writes nothing: changed is false, and
// Ended is not called. Errors: *UnknownTokenIDError.
func (s *Store) Revoke(ctx context.Context, id string) (t Token, changed bool, err error) {
	t, changed, err = s.revocable(ctx, s.reader(), id)
	if err != nil || !changed {
		return t, false, err
	}
	err = s.change(ctx, "revoke token", func(tx *sql.Tx) error {
		if t, changed, err = s.revocable(ctx, tx, id); err != nil || !changed {
			return err
		}
		if t.RevokedAt.IsZero() {
			t.RevokedAt = s.now()
		}
		_, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ?, revoked_by_command = 1 WHERE id = ?`, t.RevokedAt.UnixMilli(), id)
		return err
	})
	if err == nil && changed && s.Ended != nil {
		s.Ended()
	}
	return t, changed, err
}

// revocable returns a token, and whether a revocation by command would change it.
func (s *Store) revocable(ctx context.Context, q querier, id string) (t Token, would bool, err error) {
	t, err = scanToken(q.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return t, false, &UnknownTokenIDError{ID: redact(id)}
	}
	if err != nil {
		return t, false, fmt.Errorf("read token: %w", err)
	}
	err = q.QueryRowContext(ctx, `SELECT revoked_by_command = 0 FROM tokens WHERE id = ?`, id).Scan(&would)
	return t, would, err
}

// Tokens returns the tokens of a person, or all tokens for "". Revoked ones are included; the newest come first. Errors:
// *UnknownPersonError.
func (s *Store) Tokens(ctx context.Context, person string) ([]Token, error) {
	if person != "" {
		if _, err := s.Get(ctx, person); err != nil {
			return nil, err
		}
	}
	rows, err := s.reader().QueryContext(ctx,
		`SELECT `+tokenColumns+` FROM tokens WHERE ? IN ('', person) ORDER BY created_at DESC, rowid DESC`, person)
	return sqlrows.Collect(rows, err, "list tokens", scanToken)
}

// readBearers reads the tokens that ByToken caches. Ended ones are included: EndExpired finds those that have just expired, and a
// request with one is no guess.
func (s *Store) readBearers(ctx context.Context) (map[digest]*bearer, error) {
	rows, err := s.reader().QueryContext(ctx, `SELECT t.hash, t.id, coalesce(t.last_used_at, 0), p.name, p.tier, t.scope, t.spaces, t.expires_at, t.revoked_at IS NOT NULL
		FROM tokens t JOIN people p ON p.name = t.person`)
	all, err := sqlrows.Collect(rows, err, "read tokens", scanBearer)
	stored := make(map[digest]*bearer, len(all))
	for _, b := range all {
		stored[b.hash] = b
	}
	return stored, err
}

// Forget deletes expired sign-ins and tokens that were revoked or had expired before a time (the zero time: none). It returns the number
// of deleted tokens. Requests with a deleted token are refused as before. A token of the configuration that the operator has
// revoked stays: the file may still declare it.
func (s *Store) Forget(ctx context.Context, before time.Time) (tokens int64, err error) {
	err = s.change(ctx, "delete expired sign-ins and revoked tokens", func(tx *sql.Tx) error {
		if err := deleteExpiredSignIns(ctx, tx, s.now()); err != nil || before.IsZero() {
			return err
		}
		tokens, err = changes(tx.ExecContext(ctx, `DELETE FROM tokens WHERE coalesce(revoked_at, expires_at) < ? AND (revoked_by_command = 0
			OR person IN (SELECT name FROM people WHERE source = 'operator'))`, before.UnixMilli()))
		return err
	})
	return tokens, err
}

// recordUse updates last_used_at of a token that was used before it was revoked. The statement checks useInterval again,
// because the cache of ByToken may have been reset and read between claimUse and this update.
func (s *Store) recordUse(ctx context.Context, id string, now time.Time) error {
	at := now.UnixMilli()
	_, err := s.db.ExecContext(ctx, `UPDATE tokens SET last_used_at = ?1 WHERE id = ?2 AND coalesce(revoked_at, ?1) >= ?1
		AND (last_used_at IS NULL OR last_used_at > ?1 OR last_used_at <= ?3)`, at, id, at-useInterval.Milliseconds())
	return err
}

// reader returns the handle for queries outside a transaction.
func (s *Store) reader() *sql.DB {
	if s.Reads == nil {
		return s.db
	}
	return s.Reads
}

// now returns the time in whole milliseconds, the precision of SQL.
func (s *Store) now() time.Time {
	now := s.Now
	if now == nil {
		now = time.Now
	}
	return time.UnixMilli(now().UnixMilli()).UTC()
}

// change runs do in one transaction and resets the caches after the commit. An earlier reset would let a concurrent read
// cache the old rows.
func (s *Store) change(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	defer s.overrides.reset()
	defer s.bearers.reset()
	defer s.signIns.reset()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// changeEnding is change for what may revoke tokens.
func (s *Store) changeEnding(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	err := s.change(ctx, what, do)
	if err == nil && s.Ended != nil {
		s.Ended()
	}
	return err
}

// querier is a transaction or, for a single query, the pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func personOf(ctx context.Context, q querier, name string) (Person, error) {
	person, err := scanPerson(q.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE name = ?`, name))
	switch {
	case err == nil:
		return person, nil
	case !errors.Is(err, sql.ErrNoRows):
		return Person{}, fmt.Errorf("read person: %w", err)
	}
	rows, err := q.QueryContext(ctx, `SELECT name FROM people ORDER BY name`)
	names, err := sqlrows.Collect(rows, err, "list names", scanName)
	if err != nil {
		return Person{}, err
	}
	return Person{}, &UnknownPersonError{Name: redact(name), Near: nearest.Names(name, names)}
}

const personColumns = `name, tier, created_at, created_by, source, quota_ms, longest_ms, priority, concurrency, runs`

func scanPerson(row sqlrows.Scanner) (p Person, err error) {
	err = row.Scan(&p.Name, &p.Tier, (*instant)(&p.CreatedAt), &p.CreatedBy, &p.Source,
		span{&p.Overrides.Quota}, span{&p.Overrides.Longest}, &p.Overrides.Priority, &p.Overrides.Concurrency, &p.Overrides.Runs)
	return p, err
}

func scanName(row sqlrows.Scanner) (name string, err error) {
	err = row.Scan(&name)
	return name, err
}

const tokenColumns = `id, person, label, created_at, last_used_at, revoked_at, scope, spaces, expires_at, declared, coalesce(created_by, '')`

func scanToken(row sqlrows.Scanner) (t Token, err error) {
	err = row.Scan(&t.ID, &t.Person, &t.Label, (*instant)(&t.CreatedAt), (*instant)(&t.LastUsedAt), (*instant)(&t.RevokedAt),
		&t.Rights.Scope, spaceList{&t.Rights.Spaces}, (*instant)(&t.Rights.ExpiresAt), &t.Declared, &t.CreatedBy)
	return t, err
}

func scanBearer(row sqlrows.Scanner) (*bearer, error) {
	b := &bearer{who: identity.Identity{Kind: identity.User}}
	var hash []byte
	var lastUse int64
	if err := row.Scan(&hash, &b.id, &lastUse, &b.who.Name, &b.who.Tier,
		&b.rights.Scope, spaceList{&b.rights.Spaces}, (*instant)(&b.rights.ExpiresAt), &b.revoked); err != nil {
		return nil, err
	}
	b.hash = digest(hash) // 32 bytes, by a CHECK
	b.lastUse.Store(lastUse)
	return b, nil
}

// instant is a time.Time as stored in SQL; NULL is the zero time.
type instant time.Time

// Scan implements sql.Scanner.
func (i *instant) Scan(value any) error {
	switch ms := value.(type) {
	case nil:
		*i = instant{}
	case int64:
		*i = instant(time.UnixMilli(ms).UTC())
	default:
		return fmt.Errorf("a time is %T, want an integer", value)
	}
	return nil
}
