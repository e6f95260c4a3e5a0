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

// tokenPrefix begins every bearer token of ours, so that people and secret scanners know it when they see it.
const tokenPrefix = TokenPrefix

// TokenPrefix is what Bearer looks for.
const TokenPrefix = "sph_"

const (
	maxBearer = 128 // bytes of a token that is looked at; ours have 68
	maxLine   = maxBearer + 64
	maxLabel  = 100
	// maxLive bounds the tokens of one person that are not revoked, and so what ByToken keeps in memory.
	maxLive   = 100
	markEvery = time.Minute
)

// Token is what may be shown of a bearer token: its text is shown once, when it is made, and kept nowhere.
type Token struct {
	ID         string // public
	Person     string
	Label      string
	CreatedAt  time.Time
	LastUsedAt time.Time // to the minute; zero: never
	RevokedAt  time.Time // zero: it is good
}

// UnknownTokenError refuses a bearer token. It goes to whoever brought the token, and does not show it.
type UnknownTokenError struct{}

func (*UnknownTokenError) Error() string {
	return "this token is not known here: it was revoked, mistyped, or made for another host; " +
		"ask the operator for a new one (spacehost token create NAME), or send none"
}

// UnknownTokenIDError says that no token has that ID.
type UnknownTokenIDError struct{ ID string }

func (e *UnknownTokenIDError) Error() string {
	return fmt.Sprintf("no token has the ID %.70q; `spacehost token list` shows the IDs", e.ID)
}

// TooManyTokensError says that a person has as many tokens as one may have.
type TooManyTokensError struct {
	Person string
	Most   int
}

func (e *TooManyTokensError) Error() string {
	return fmt.Sprintf("%s has %d tokens, and that is the most: `spacehost token list %s` shows which are not used, `spacehost token revoke ID` ends one", e.Person, e.Most, e.Person)
}

// BadLabelError refuses the label of a new token.
type BadLabelError struct{ Label string }

func (e *BadLabelError) Error() string {
	return fmt.Sprintf("%.70q cannot be a label: give at most %d bytes of text that can be printed, and no token", e.Label, maxLabel)
}

// checkLabel also refuses a label with a token in it: lists show labels.
func checkLabel(label string) error {
	if len(label) > maxLabel || strings.IndexFunc(label, identity.IsUnprintable) >= 0 || strings.Contains(strings.ToLower(label), tokenPrefix) {
		return &BadLabelError{Label: redact(label)}
	}
	return nil
}

// Bearer is the token of ours that a request brings, if it brings one. Whether it is good, ByToken knows.
//
//  1. A line is ours if it reads "Bearer sph_...", the scheme in any case, the token short and of visible ASCII.
//     Those of others count as absent: gradio_client sends a locally saved Hugging Face token by itself.
//  2. Of several lines of one name all must bring the same token: which of two a proxy in front of us has
//     looked at cannot be known.
//  3. x-hf-authorization wins over Authorization: it is where gradio_client puts its token, and an app with a
//     login of its own needs the other.
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

// digest is the SHA-256 of a token. Only digests are compared, so it does not matter that a look-up takes longer the
// more of one is right: who could choose a token by its digest could break SHA-256.
type digest [sha256.Size]byte

// newToken makes the text of a token out of 256 random bits.
func newToken() string {
	var random [32]byte
	rand.Read(random[:])
	return tokenPrefix + hex.EncodeToString(random[:])
}

// newTokenID makes a public ID: short enough to be typed, and never like a flag.
func newTokenID() string { return strings.ToLower(rand.Text()[:10]) }

// ByToken is who a bearer token speaks for; anything but a good one is refused with *UnknownTokenError. It reads the
// database after a change only, and has it written down at most once a minute for each token, which nobody waits for.
func (p *Store) ByToken(ctx context.Context, token string) (identity.Identity, error) {
	b, err := p.byToken(ctx, token)
	if err != nil {
		return identity.Identity{}, err
	}
	return b.who, nil
}

func (p *Store) byToken(ctx context.Context, token string) (*bearer, error) {
	if len(token) > maxBearer || !strings.HasPrefix(token, tokenPrefix) {
		return nil, &UnknownTokenError{}
	}
	good, err := p.bearers.get(ctx, p.readBearers)
	if err != nil {
		return nil, err
	}
	b, known := good[digest(sha256.Sum256([]byte(token)))]
	if !known {
		return nil, &UnknownTokenError{}
	}
	if now := p.now(); b.claimMark(now) {
		p.lastUsed.due(b.id, now, p.mark)
	}
	return b, nil
}

// bearer is one good token.
type bearer struct {
	hash   digest
	id     string
	who    identity.Identity
	marked atomic.Int64 // unix milliseconds of the last mark; 0: never
}

// claimMark reports whether it is for the caller to write down that the token is used: of those who come together,
// one. A mark in the future is of a clock that has stepped back since.
func (b *bearer) claimMark(now time.Time) bool {
	last := b.marked.Load()
	if since := now.UnixMilli() - last; since >= 0 && since < markEvery.Milliseconds() {
		return false
	}
	return b.marked.CompareAndSwap(last, now.UnixMilli())
}

// kept is what was last read from the database. Of tokens that is all, and not those that were used last: made-up ones
// then neither push others out nor reach the database, whose one connection everybody shares.
type cache[T any] struct {
	known   atomic.Pointer[T] // nil: to be read
	reading sync.Mutex        // from before the read until known is set, and to forget
}

func (k *cache[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	if known := k.known.Load(); known != nil {
		return *known, nil
	}
	k.reading.Lock()
	defer k.reading.Unlock()
	if known := k.known.Load(); known != nil { // somebody else has read meanwhile
		return *known, nil
	}
	known, err := read(ctx)
	if err != nil {
		return known, err
	}
	k.known.Store(&known)
	return known, nil
}

// forget is called after a change is committed. Whoever read before the commit has kept what it read by the time that
// forget has the lock, so a revoked token does not come back.
func (k *cache[T]) forget() {
	k.reading.Lock()
	defer k.reading.Unlock()
	k.known.Store(nil)
}
