package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"spacehost/internal/identity"
)

const tokenPrefix = TokenPrefix

// TokenPrefix begins every bearer token of spacehost, so that users and secret scanners recognize it.
const TokenPrefix = "sph_"

const (
	maxBearer = 128 // longest accepted token in bytes; those of spacehost have 68
	maxLine   = maxBearer + 64
	maxLabel  = 100
	// maxTokens bounds the valid tokens of one person. With maxOwnTokens and Forget it bounds the cache of ByToken, which has ended ones too.
	maxTokens   = 100
	useInterval = time.Minute
)

// Token is the public part of a bearer token. Its text is shown once, when it is created, and is not stored.
type Token struct {
	ID         string // public
	Person     string
	Label      string
	CreatedAt  time.Time
	LastUsedAt time.Time // to the minute; zero: never
	RevokedAt  time.Time // zero: valid
	Rights     Rights
	Declared   bool   // by the configuration
	CreatedBy  string // ID of the token with which a person created it; "": none, such as for an operator
}

// UnknownTokenError refuses a bearer token. It is returned to the client that sent the token, and does not contain it.
type UnknownTokenError struct {
	Ended bool // the host has issued the token, so the request is no guess
}

func (*UnknownTokenError) Error() string {
	return "this token is not known here: it was revoked, has expired, was mistyped, or was created for another host; " +
		"ask the operator for a new one (spacehost token create NAME), or send none"
}

// UnknownTokenIDError is returned for an ID that no token has.
type UnknownTokenIDError struct{ ID string }

func (e *UnknownTokenIDError) Error() string {
	return fmt.Sprintf("no token has the ID %.70q; `spacehost token list` shows the IDs", e.ID)
}

// TooManyTokensError refuses another token for a person with the maximum number of tokens.
type TooManyTokensError struct {
	Person string
	Most   int
	Daily  bool // Most is the number of new tokens in 24 hours
}

func (e *TooManyTokensError) Error() string {
	if e.Daily {
		return fmt.Sprintf("%s has created %d tokens in 24 hours, which is the maximum; use one of them, or create one later", e.Person, e.Most)
	}
	return fmt.Sprintf("%s has %d tokens, which is the maximum; revoke one with `spacehost token revoke ID` (`spacehost token list %s` shows when each was last used)", e.Person, e.Most, e.Person)
}

// BadLabelError refuses the label of a new token.
type BadLabelError struct{ Label string }

func (e *BadLabelError) Error() string {
	return fmt.Sprintf("%.70q cannot be a label: give at most %d bytes of text that can be printed, and no token", e.Label, maxLabel)
}

// checkLabel also refuses a label that contains a token, because labels appear in lists.
func checkLabel(label string) error {
	if len(label) > maxLabel || strings.IndexFunc(label, identity.IsUnprintable) >= 0 || strings.Contains(strings.ToLower(label), tokenPrefix) {
		return &BadLabelError{Label: redact(label)}
	}
	return nil
}

// Bearer returns the spacehost token in a request's headers, if there is one. ByToken checks whether it is valid.
//
//  1. A header line counts if it is "Bearer sph_...", with the scheme in any case and a short token of visible ASCII. Other
//     tokens count as absent: gradio_client sends a locally saved Hugging Face token on its own.
//  2. Several lines of one header must all contain the same token, because a proxy in front of the host may have checked
//     any of them.
//  3. x-hf-authorization takes precedence over Authorization: gradio_client uses the former, and an app with its own login
//     needs the latter.
func Bearer(h http.Header) (token string, ok bool) {
	for _, name := range []string{"X-Hf-Authorization", "Authorization"} { // 3
		if token, ok = agreed(h.Values(name)); ok {
			return token, true
		}
	}
	return "", false
}

func agreed(lines []string) (token string, ok bool) {
	for i, line := range lines {
		one, ours := bearerOf(line)
		if !ours || i > 0 && one != token { // 2
			return "", false
		}
		token = one
	}
	return token, len(lines) > 0
}

func bearerOf(line string) (token string, ours bool) {
	if len(line) > maxLine {
		return "", false
	}
	words := strings.Fields(line)
	if len(words) != 2 || !strings.EqualFold(words[0], "Bearer") || !strings.HasPrefix(words[1], tokenPrefix) { // 1
		return "", false
	}
	if len(words[1]) > maxBearer || strings.IndexFunc(words[1], identity.IsInvisible) >= 0 { // 1
		return "", false
	}
	return words[1], true
}

// digest is the SHA-256 of a token. A lookup takes longer the more bytes of the digest match. That leaks nothing useful,
// because choosing a token by its digest would require breaking SHA-256.
type digest [sha256.Size]byte

// newToken returns the text of a new token with 256 random bits.
func newToken() string {
	var random [32]byte
	rand.Read(random[:])
	return tokenPrefix + hex.EncodeToString(random[:])
}

// newTokenID returns a public ID, which is short enough to type and never looks like a flag.
func newTokenID() string { return strings.ToLower(rand.Text()[:10]) }

// ByToken returns the identity of a bearer token. Any other text is refused with *UnknownTokenError. It reads the database
// only after a change. The use is written in the background, at most once a minute per token.
func (s *Store) ByToken(ctx context.Context, token string) (identity.Identity, error) {
	b, err := s.byToken(ctx, token)
	if err != nil {
		return identity.Identity{}, err
	}
	return b.who, nil
}

// Use returns the identity of a bearer token that a request uses with a scope at a Space ("": at the console). Errors: those of
// ByToken, and *RightsError.
func (s *Store) Use(ctx context.Context, token string, scope Scope, space string) (identity.Identity, error) {
	proof, err := s.ProofOf(ctx, token)
	if err == nil {
		err = proof.Allow(scope, space)
	}
	if err != nil {
		return identity.Identity{}, err
	}
	return proof.Who, nil
}

func (s *Store) byToken(ctx context.Context, token string) (*bearer, error) {
	if len(token) > maxBearer || !strings.HasPrefix(token, tokenPrefix) {
		return nil, &UnknownTokenError{}
	}
	stored, err := s.bearers.get(ctx, s.readBearers)
	if err != nil {
		return nil, err
	}
	b, known := stored[digest(sha256.Sum256([]byte(token)))]
	now := s.now()
	if !known || b.revoked || b.rights.isExpired(now) {
		return nil, &UnknownTokenError{Ended: known}
	}
	if b.claimUse(now) {
		s.lastUsed.add(b.id, now, s.recordUse)
	}
	return b, nil
}

// bearer is one token.
type bearer struct {
	hash    digest
	id      string
	who     identity.Identity
	rights  Rights
	revoked bool
	lastUse atomic.Int64 // unix milliseconds of the last recorded use; 0: never
}

// claimUse reports whether the caller must record the use: exactly one of several concurrent callers. A last use in the
// future comes from a clock that has stepped back since.
func (b *bearer) claimUse(now time.Time) bool {
	last := b.lastUse.Load()
	if since := now.UnixMilli() - last; since >= 0 && since < useInterval.Milliseconds() {
		return false
	}
	return b.lastUse.CompareAndSwap(last, now.UnixMilli())
}

// cache holds the result of one query until a change resets it. For tokens it holds all of them, not the most recently
// used: made-up tokens then neither evict valid ones nor reach the database, which has one shared connection.
type cache[T any] struct {
	known   atomic.Pointer[T] // nil: must be read
	reading sync.Mutex        // held from before a read until known is set, and by reset
}

func (c *cache[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	if known := c.known.Load(); known != nil {
		return *known, nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if known := c.known.Load(); known != nil { // another goroutine has read it meanwhile
		return *known, nil
	}
	known, err := read(ctx)
	if err != nil {
		return known, err
	}
	c.known.Store(&known)
	return known, nil
}

// reset is called after a change is committed. A read that began before the commit has stored its result by the time that
// reset has the lock, so a revoked token does not come back.
func (c *cache[T]) reset() {
	c.reading.Lock()
	defer c.reading.Unlock()
	c.known.Store(nil)
}
