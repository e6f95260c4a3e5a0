package people

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"sync"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/sqlrows"
)

// SignInLife is the lifetime of a sign-in by token. LocalLife is that of the local visitor's sign-in, which has no token.
const (
	SignInLife = 30 * 24 * time.Hour
	LocalLife  = 12 * time.Hour
)

// maxSignIns bounds the sign-ins of one token. The oldest are deleted first.
const maxSignIns = 200

// Proof is an authenticated identity and the credential that proved it.
type Proof struct {
	Who    identity.Identity
	token  string // ID of the bearer token; "": the host's own link
	rights Rights // of the bearer token
}

// Allow refuses a request that needs a scope at a Space ("": at the console). Errors: *RightsError.
func (p Proof) Allow(scope Scope, space string) error {
	return p.rights.Allow(p.rights.use(scope, space))
}

// IsLimited reports whether the token of the proof is valid at some Spaces only.
func (p Proof) IsLimited() bool { return len(p.rights.Spaces) > 0 }

// SpaceLimit returns the Spaces at which the token of the proof is valid.
func (p Proof) SpaceLimit() SpaceLimit { return p.rights.Spaces }

// Scope returns the scope of the token of the proof.
func (p Proof) Scope() Scope { return p.rights.Scope }

// ExpiresAt returns when the token of the proof expires, the zero time without an end.
func (p Proof) ExpiresAt() time.Time { return p.rights.ExpiresAt }

// Token returns the ID of the bearer token of the proof, "" for the local visitor.
func (p Proof) Token() string { return p.token }

// checkToken returns *UnknownTokenError if the token of the proof has ended since.
func (s *Store) checkToken(ctx context.Context, q querier, p Proof) error {
	if p.token == "" {
		return nil
	}
	var valid bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM tokens WHERE id = ? AND revoked_at IS NULL AND coalesce(expires_at > ?, 1))`,
		p.token, s.now().UnixMilli()).Scan(&valid)
	if err == nil && !valid {
		err = &UnknownTokenError{Ended: true}
	}
	return err
}

// LocalProof returns the Proof of the local visitor, who opened a link that the host has printed.
func LocalProof() Proof {
	return Proof{Who: identity.Identity{Kind: identity.Local}, rights: FullRights()}
}

// Credential identifies what proved the identity, without being a secret: the ID of a bearer token, or the key of the local visitor.
func (p Proof) Credential() string { return cmp.Or(p.token, p.Who.Key()) }

// Life returns the lifetime of a sign-in by this Proof.
func (p Proof) Life() time.Duration {
	if p.token == "" {
		return LocalLife
	}
	return SignInLife
}

// ProofOf returns the Proof of a bearer token that is used to sign in. Its errors are those of ByToken.
func (s *Store) ProofOf(ctx context.Context, token string) (Proof, error) {
	b, err := s.byToken(ctx, token)
	if err != nil {
		return Proof{}, err
	}
	return Proof{b.who, b.id, b.rights}, nil
}

// signInEnd returns the end of a sign-in that begins now: the token's, if that is earlier.
func (p Proof) signInEnd(now time.Time) time.Time {
	end := now.Add(p.Life())
	if at := p.rights.ExpiresAt; !at.IsZero() && at.Before(end) {
		return at
	}
	return end
}

// signIn is a sign-in that was valid when it was read.
type signIn struct {
	hash  digest
	space string
	who   identity.Identity
	until time.Time
}

// SignedIn returns the identity that is signed in at a Space by the cookie text, or false without a valid sign-in.
func (s *Store) SignedIn(ctx context.Context, space, text string) (identity.Identity, bool, error) {
	if text == "" || len(text) > maxSecretText {
		return identity.Identity{}, false, nil
	}
	good, err := s.signIns.get(ctx, s.readSignIns)
	if err != nil {
		return identity.Identity{}, false, err
	}
	one, known := good[digest(sha256.Sum256([]byte(text)))]
	if !known || one.space != space || !s.now().Before(one.until) {
		return identity.Identity{}, false, nil
	}
	return one.who, true, nil
}

// newSecret returns 256 random bits as text.
func newSecret() string {
	var random [32]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:])
}

// Codes are one-time codes. Each is valid for a limited time and for one place. Only digests are stored and compared. Use
// NewCodes: the zero value is not ready.
type Codes struct {
	life time.Duration
	now  func() time.Time

	mu     sync.Mutex
	issued map[digest]code
}

type code struct {
	place string
	proof Proof
	until time.Time
}

// maxSecretText is the longest accepted cookie or code in bytes; the host's have 64.
const maxSecretText = 128

// maxCodes bounds the unused codes. Codes are issued only to authenticated clients.
const maxCodes = 10_000

// NewCodes returns Codes that are valid for the duration life. now is the wall clock; nil is the real one.
func NewCodes(life time.Duration, now func() time.Time) *Codes {
	if now == nil {
		now = time.Now
	}
	return &Codes{life: life, now: now, issued: map[digest]code{}}
}

// Give issues a code for a place.
func (c *Codes) Give(place string, proof Proof) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for hash, g := range c.issued {
		if !now.Before(g.until) || len(c.issued) >= maxCodes {
			delete(c.issued, hash)
		}
	}
	text := newSecret()
	c.issued[digest(sha256.Sum256([]byte(text)))] = code{place, proof, now.Add(c.life)}
	return text
}

// Take redeems a code. The code is used up even if the place is wrong.
func (c *Codes) Take(place, text string) (Proof, bool) {
	if len(text) > maxSecretText {
		return Proof{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	hash := digest(sha256.Sum256([]byte(text)))
	g, known := c.issued[hash]
	delete(c.issued, hash)
	if !known || g.place != place || !c.now().Before(g.until) {
		return Proof{}, false
	}
	return g.proof, true
}

// Verify checks a code without using it up.
func (c *Codes) Verify(place, text string) (Proof, bool) {
	if len(text) > maxSecretText {
		return Proof{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g, known := c.issued[digest(sha256.Sum256([]byte(text)))]
	if !known || g.place != place || !c.now().Before(g.until) {
		return Proof{}, false
	}
	return g.proof, true
}

// SignIn creates a sign-in of proof's person at a Space. It returns the text of the browser's cookie, which is not
// stored. The sign-in ends with the token. A token that has ended since is refused with *UnknownTokenError, one that is not valid at
// the Space with *RightsError.
func (s *Store) SignIn(ctx context.Context, space string, proof Proof) (text string, err error) {
	if err := proof.Allow(ScopeCall, space); err != nil {
		return "", err
	}
	text = newSecret()
	err = s.change(ctx, "sign in", func(tx *sql.Tx) error {
		now := s.now()
		if err := trimSignIns(ctx, tx, proof.token, now); err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(text))
		added, err := changes(tx.ExecContext(ctx, `INSERT INTO sign_ins (hash, space, token, created_at, expires_at)
			SELECT ?1, ?2, nullif(?3, ''), ?4, ?5 WHERE ?4 < ?5 AND (?3 = '' OR EXISTS (SELECT 1 FROM tokens WHERE id = ?3 AND revoked_at IS NULL))`,
			hash[:], space, proof.token, now.UnixMilli(), proof.signInEnd(now).UnixMilli()))
		if err == nil && added == 0 {
			err = &UnknownTokenError{}
		}
		return err
	})
	return text, err
}

// trimSignIns deletes expired sign-ins, and the oldest ones of a token that has reached maxSignIns.
func trimSignIns(ctx context.Context, tx *sql.Tx, token string, now time.Time) error {
	if err := deleteExpiredSignIns(ctx, tx, now); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE hash IN (SELECT hash FROM sign_ins
		WHERE coalesce(token, '') = ? ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?)`, token, maxSignIns-1)
	return err
}

func deleteExpiredSignIns(ctx context.Context, tx *sql.Tx, now time.Time) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE expires_at <= ?
		OR token IN (SELECT id FROM tokens WHERE revoked_at IS NOT NULL)`, now.UnixMilli())
	return err
}

// SignOut ends the sign-in of text, the text returned by SignIn. An unknown text is not an error.
func (s *Store) SignOut(ctx context.Context, space, text string) error {
	return s.change(ctx, "sign out", func(tx *sql.Tx) error {
		hash := sha256.Sum256([]byte(text))
		_, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE hash = ? AND space = ?`, hash[:], space)
		return err
	})
}

// readSignIns reads the sign-ins that SignedIn caches.
func (s *Store) readSignIns(ctx context.Context) (map[digest]*signIn, error) {
	rows, err := s.reader().QueryContext(ctx, `SELECT s.hash, s.space, s.expires_at, coalesce(p.name, ''), coalesce(p.tier, '')
		FROM sign_ins s LEFT JOIN tokens t ON t.id = s.token LEFT JOIN people p ON p.name = t.person
		WHERE s.expires_at > ? AND t.revoked_at IS NULL`, s.now().UnixMilli())
	all, err := sqlrows.Collect(rows, err, "read sign-ins", scanSignIn)
	good := make(map[digest]*signIn, len(all))
	for _, signIn := range all {
		good[signIn.hash] = signIn
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
