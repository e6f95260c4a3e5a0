// Package people keeps the accounts of named users: tiers, overrides, bearer tokens, browser sign-ins and the delegation deny list.
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

// Store are those whom the operator knows by name, their bearer tokens, and the browsers that they have signed in: the
// tables people, tokens and sign_ins. It may be used by many goroutines.
//
// Its methods bring their own connection, and the pool has only one: never call them with a transaction open. Close it
// before the database.
type Store struct {
	Now   func() time.Time // wall clock, set before the first use; nil is the real one
	Reads *sql.DB          // as migrations.OpenReads makes it, set before the first use; nil: the one that writes

	db       *sql.DB
	lastUsed lastUsedWriter
	bearers  cache[map[digest]*bearer]
	owns     cache[map[string]Overrides]
	signIns  cache[map[digest]*signIn]
}

// NewStore returns the People in db, which migrations.Open has opened.
func NewStore(db *sql.DB) *Store { return &Store{db: db} }

// Add makes a person known; by says who did it. Errors: *BadNameError, *DuplicatePersonError, *ConfiguredPersonError.
// Which tiers there are the caller knows. A former person becomes the operator's, with the account that they had.
func (p *Store) Add(ctx context.Context, name, tier, by string) (Person, error) {
	if err := CheckName(name); err != nil {
		return Person{}, err
	}
	defer p.owns.forget()
	person := Person{Name: name, Tier: tier, CreatedAt: p.now(), CreatedBy: by, Source: Operator}
	result, err := p.db.ExecContext(ctx, `INSERT INTO people (name, tier, created_at, created_by, source) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, created_by = excluded.created_by, source = excluded.source,
		quota_ms = NULL, longest_ms = NULL, priority = NULL, concurrency = NULL
		WHERE source = 'former'`, name, tier, person.CreatedAt.UnixMilli(), by, Operator)
	if err != nil {
		return Person{}, fmt.Errorf("add person %s: %w", name, err)
	}
	added, err := result.RowsAffected()
	if err != nil {
		return Person{}, fmt.Errorf("add person %s: %w", name, err)
	}
	if added == 0 {
		return Person{}, p.taken(ctx, name)
	}
	return person, nil
}

// taken says why a name cannot be given to somebody new.
func (p *Store) taken(ctx context.Context, name string) error {
	person, err := p.Get(ctx, name)
	if err == nil {
		err = person.byOperator()
	}
	if err == nil {
		err = &DuplicatePersonError{Name: name}
	}
	return err
}

// SetTier gives a person another tier, from their next call on. Errors: *UnknownPersonError, *ConfiguredPersonError.
func (p *Store) SetTier(ctx context.Context, name, tier string) (Person, error) {
	return p.Set(ctx, name, Change{Tier: &tier})
}

// List is everybody, by name.
func (p *Store) List(ctx context.Context) ([]Person, error) {
	rows, err := p.questions().QueryContext(ctx, `SELECT `+personColumns+` FROM people ORDER BY name`)
	return sqlrows.Collect(rows, err, "list people", scanPerson)
}

// Get is one person. Errors: *UnknownPersonError.
func (p *Store) Get(ctx context.Context, name string) (Person, error) {
	return personOf(ctx, p.questions(), name)
}

// CreateToken makes a token for a person. Its text is returned here and never again. Errors: *UnknownPersonError,
// *ConfiguredPersonError, *BadLabelError, *TooManyTokensError.
func (p *Store) CreateToken(ctx context.Context, person, label string) (text string, t Token, err error) {
	if err := checkLabel(label); err != nil {
		return "", Token{}, err
	}
	text, t = newToken(), Token{ID: newTokenID(), Person: person, Label: label, CreatedAt: p.now()}
	err = p.change(ctx, "create token", func(tx *sql.Tx) error {
		if err := checkRoom(ctx, tx, person); err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(text))
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (id, person, hash, label, created_at) VALUES (?, ?, ?, ?, ?)`,
			t.ID, person, hash[:], label, t.CreatedAt.UnixMilli())
		return err
	})
	if err != nil {
		return "", Token{}, err
	}
	return text, t, nil
}

// checkRoom says whether a person, who must be known, may have one more token.
func checkRoom(ctx context.Context, tx *sql.Tx, person string) error {
	known, err := personOf(ctx, tx, person)
	if err == nil {
		err = known.byOperator()
	}
	if err != nil {
		return err
	}
	var live int
	err = tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE person = ? AND revoked_at IS NULL`, person).Scan(&live)
	if err == nil && live >= maxLive {
		err = &TooManyTokensError{Person: person, Most: maxLive}
	}
	return err
}

// Revoke ends a token: once it has returned, ByToken refuses it. To revoke twice changes nothing. Errors:
// *UnknownTokenIDError, *ConfiguredPersonError.
func (p *Store) Revoke(ctx context.Context, id string) (t Token, err error) {
	err = p.change(ctx, "revoke token", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL`, p.now().UnixMilli(), id)
		if err != nil {
			return err
		}
		t, err = scanToken(tx.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE id = ?`, id))
		if errors.Is(err, sql.ErrNoRows) {
			return &UnknownTokenIDError{ID: redact(id)}
		}
		if err != nil {
			return err
		}
		owner, err := personOf(ctx, tx, t.Person)
		if err != nil {
			return err
		}
		return owner.byOperator() // undoes the update
	})
	return t, err
}

// Tokens are those of a person, or of everybody with "": the newest first, with those that are revoked. Errors:
// *UnknownPersonError.
func (p *Store) Tokens(ctx context.Context, person string) ([]Token, error) {
	if person != "" {
		if _, err := p.Get(ctx, person); err != nil {
			return nil, err
		}
	}
	rows, err := p.questions().QueryContext(ctx,
		`SELECT `+tokenColumns+` FROM tokens WHERE ? IN ('', person) ORDER BY created_at DESC, rowid DESC`, person)
	return sqlrows.Collect(rows, err, "list tokens", scanToken)
}

// readBearers reads what ByToken keeps.
func (p *Store) readBearers(ctx context.Context) (map[digest]*bearer, error) {
	rows, err := p.questions().QueryContext(ctx, `SELECT t.hash, t.id, coalesce(t.last_used_at, 0), p.name, p.tier
		FROM tokens t JOIN people p ON p.name = t.person WHERE t.revoked_at IS NULL`)
	all, err := sqlrows.Collect(rows, err, "read tokens", scanBearer)
	good := make(map[digest]*bearer, len(all))
	for _, b := range all {
		good[b.hash] = b
	}
	return good, err
}

// SignIn makes a browser one that proof's person has signed in at a Space, and returns what its cookie says, which is kept
// nowhere. A token that has been revoked since is refused: *UnknownTokenError.
func (p *Store) SignIn(ctx context.Context, space string, proof Proof) (text string, err error) {
	text = newSecret()
	err = p.change(ctx, "sign in", func(tx *sql.Tx) error {
		now := p.now()
		if err := tidySignIns(ctx, tx, proof.token, now); err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(text))
		added, err := changes(tx.ExecContext(ctx, `INSERT INTO sign_ins (hash, space, token, created_at, expires_at)
			SELECT ?1, ?2, nullif(?3, ''), ?4, ?5 WHERE ?3 = '' OR EXISTS (SELECT 1 FROM tokens WHERE id = ?3 AND revoked_at IS NULL)`,
			hash[:], space, proof.token, now.UnixMilli(), now.Add(proof.Life()).UnixMilli()))
		if err == nil && added == 0 {
			err = &UnknownTokenError{}
		}
		return err
	})
	return text, err
}

// tidySignIns drops what is over, and the oldest of whoever has very many.
func tidySignIns(ctx context.Context, tx *sql.Tx, token string, now time.Time) error {
	if err := dropSignIns(ctx, tx, now); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE hash IN (SELECT hash FROM sign_ins
		WHERE coalesce(token, '') = ? ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)`, token, signInsEach-1)
	return err
}

func dropSignIns(ctx context.Context, tx *sql.Tx, now time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE expires_at <= ?
		OR token IN (SELECT id FROM tokens WHERE revoked_at IS NOT NULL)`, now.UnixMilli())
	return err
}

// Forget takes out sign-ins that are over and tokens that were revoked before a moment (the zero time: none), and says
// how many tokens. Whoever brings one is refused as before.
func (p *Store) Forget(ctx context.Context, before time.Time) (tokens int64, err error) {
	err = p.change(ctx, "forget what is over", func(tx *sql.Tx) error {
		if err := dropSignIns(ctx, tx, p.now()); err != nil || before.IsZero() {
			return err
		}
		tokens, err = changes(tx.ExecContext(ctx, `DELETE FROM tokens WHERE revoked_at < ?`, before.UnixMilli()))
		return err
	})
	return tokens, err
}

// SignOut ends what SignIn returned; of what is unknown nothing is said.
func (p *Store) SignOut(ctx context.Context, space, text string) error {
	return p.change(ctx, "sign out", func(tx *sql.Tx) error {
		hash := sha256.Sum256([]byte(text))
		_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE hash = ? AND space = ?`, hash[:], space)
		return err
	})
}

// readSignIns reads what SignedIn keeps.
func (p *Store) readSignIns(ctx context.Context) (map[digest]*signIn, error) {
	rows, err := p.questions().QueryContext(ctx, `SELECT s.hash, s.space, s.expires_at, coalesce(p.name, ''), coalesce(p.tier, '')
		FROM sign_ins s LEFT JOIN tokens t ON t.id = s.token LEFT JOIN people p ON p.name = t.person
		WHERE s.expires_at > ? AND t.revoked_at IS NULL`, p.now().UnixMilli())
	all, err := sqlrows.Collect(rows, err, "read sign-ins", scanSignIn)
	good := make(map[digest]*signIn, len(all))
	for _, s := range all {
		good[s.hash] = s
	}
	return good, err
}

func scanSignIn(row sqlrows.Scanner) (*signIn, error) {
	s := &signIn{}
	var hash []byte
	if err := row.Scan(&hash, &s.space, (*instant)(&s.until), &s.who.Name, &s.who.Tier); err != nil {
		return nil, err
	}
	s.hash = digest(hash) // 32 bytes, by a CHECK
	if s.who.Kind = identity.User; s.who.Name == "" {
		s.who.Kind = identity.Local
	}
	return s, nil
}

// mark writes down that a token was used, before it was revoked. It asks again whether a mark is due: what ByToken keeps
// may have been forgotten and read again between a claim and its mark.
func (p *Store) mark(ctx context.Context, id string, now time.Time) error {
	at := now.UnixMilli()
	_, err := p.db.ExecContext(ctx, `UPDATE tokens SET last_used_at = ?1 WHERE id = ?2 AND coalesce(revoked_at, ?1) >= ?1
		AND (last_used_at IS NULL OR last_used_at > ?1 OR last_used_at <= ?3)`, at, id, at-markEvery.Milliseconds())
	return err
}

// questions answers what needs no transaction.
func (p *Store) questions() *sql.DB {
	if p.Reads == nil {
		return p.db
	}
	return p.Reads
}

// now is in whole milliseconds, as SQL keeps it.
func (p *Store) now() time.Time {
	now := p.Now
	if now == nil {
		now = time.Now
	}
	return time.UnixMilli(now().UnixMilli()).UTC()
}

// change is one transaction, after which ByToken and SignedIn read anew: only then, or they would keep what was before.
func (p *Store) change(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	defer p.owns.forget()
	defer p.bearers.forget()
	defer p.signIns.forget()
	tx, err := p.db.BeginTx(ctx, nil)
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

// asker is a transaction or, for a single question, the pool.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func personOf(ctx context.Context, q asker, name string) (Person, error) {
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

const personColumns = `name, tier, created_at, created_by, source, quota_ms, longest_ms, priority, concurrency`

func scanPerson(row sqlrows.Scanner) (p Person, err error) {
	err = row.Scan(&p.Name, &p.Tier, (*instant)(&p.CreatedAt), &p.CreatedBy, &p.Source,
		span{&p.Overrides.Quota}, span{&p.Overrides.Longest}, &p.Overrides.Priority, &p.Overrides.Concurrency)
	return p, err
}

func scanName(row sqlrows.Scanner) (name string, err error) {
	err = row.Scan(&name)
	return name, err
}

const tokenColumns = `id, person, label, created_at, last_used_at, revoked_at`

func scanToken(row sqlrows.Scanner) (t Token, err error) {
	err = row.Scan(&t.ID, &t.Person, &t.Label, (*instant)(&t.CreatedAt), (*instant)(&t.LastUsedAt), (*instant)(&t.RevokedAt))
	return t, err
}

func scanBearer(row sqlrows.Scanner) (*bearer, error) {
	b := &bearer{who: identity.Identity{Kind: identity.User}}
	var hash []byte
	var marked int64
	if err := row.Scan(&hash, &b.id, &marked, &b.who.Name, &b.who.Tier); err != nil {
		return nil, err
	}
	b.hash = digest(hash) // 32 bytes, by a CHECK
	b.marked.Store(marked)
	return b, nil
}

// instant is a time.Time as SQL keeps it; NULL is the zero time.
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

// change is one statement, after which Check knows what it did.
func (s *DelegationDenyList) change(ctx context.Context, statement string, values ...any) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if _, err := s.db.ExecContext(ctx, statement, values...); err != nil {
		return fmt.Errorf("change what Spaces may spend through others: %w", err)
	}
	return s.read(context.WithoutCancel(ctx)) // it is committed: whoever asked may be gone
}

func (s *DelegationDenyList) read(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, `SELECT space, identity, stopped_at, stopped_by FROM via_stops`)
	list, err := sqlrows.Collect(rows, err, "read what Spaces may not spend through others", scanDenial)
	if err != nil {
		return err
	}
	all := make(map[denialKey]Denial, len(list))
	for _, stop := range list {
		all[denialKey{stop.Space, stop.Identity}] = stop
	}
	s.all.Store(&all)
	return nil
}

func scanDenial(row sqlrows.Scanner) (s Denial, err error) {
	err = row.Scan(&s.Space, &s.Identity, (*instant)(&s.At), &s.By)
	return s, err
}
