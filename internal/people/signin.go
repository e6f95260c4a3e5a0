package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"spacehost/internal/identity"
)

// SignInLife is how long a browser stays signed in at a Space; the local visitor's, which no token stands behind, LocalLife.
const (
	SignInLife = 30 * 24 * time.Hour
	LocalLife  = 12 * time.Hour
)

// signInsEach bounds the browsers that one token has signed in; the oldest go.
const signInsEach = 200

// Proof is who somebody has shown to be, and by what.
type Proof struct {
	Who   identity.Identity
	token string // the id of their bearer token; "": the host's own link
}

// LocalProof is of whoever came by a link that the host has printed.
func LocalProof() Proof { return Proof{Who: identity.Identity{Kind: identity.Local}} }

// Life is how long a sign-in by it lasts.
func (p Proof) Life() time.Duration {
	if p.token == "" {
		return LocalLife
	}
	return SignInLife
}

// ProofOf is ByToken for somebody who is about to sign in with the token.
func (p *Store) ProofOf(ctx context.Context, token string) (Proof, error) {
	b, err := p.byToken(ctx, token)
	if err != nil {
		return Proof{}, err
	}
	return Proof{b.who, b.id}, nil
}

// signIn is one that was good when it was read.
type signIn struct {
	hash  digest
	space string
	who   identity.Identity
	until time.Time
}

// SignedIn is who has signed in at a Space with the browser that brings text; false: nobody, or not any more.
func (p *Store) SignedIn(ctx context.Context, space, text string) (identity.Identity, bool, error) {
	if text == "" || len(text) > maxSecretText {
		return identity.Identity{}, false, nil
	}
	good, err := p.signIns.get(ctx, p.readSignIns)
	if err != nil {
		return identity.Identity{}, false, err
	}
	one, known := good[digest(sha256.Sum256([]byte(text)))]
	if !known || one.space != space || !p.now().Before(one.until) {
		return identity.Identity{}, false, nil
	}
	return one.who, true, nil
}

// newSecret is text of 256 random bits.
func newSecret() string {
	var random [32]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:])
}

// Codes are one-time words of the host's, each good for a short while and for one place. The zero value is not ready: use
// NewCodes. Only digests are kept, and compared.
type Codes struct {
	life time.Duration
	now  func() time.Time

	mu    sync.Mutex
	given map[digest]given
}

type given struct {
	place string
	proof Proof
	until time.Time
}

// maxSecretText is the longest cookie or code that is looked up, in bytes; ours have 64.
const maxSecretText = 128

// maxCodes bounds what waits to be used. Who may ask for codes has shown who they are.
const maxCodes = 10_000

// NewCodes returns Codes that live so long; now is the wall clock, nil the real one.
func NewCodes(life time.Duration, now func() time.Time) *Codes {
	if now == nil {
		now = time.Now
	}
	return &Codes{life: life, now: now, given: map[digest]given{}}
}

// Give makes a code for a place.
func (c *Codes) Give(place string, proof Proof) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for hash, g := range c.given {
		if !now.Before(g.until) || len(c.given) >= maxCodes {
			delete(c.given, hash)
		}
	}
	text := newSecret()
	c.given[digest(sha256.Sum256([]byte(text)))] = given{place, proof, now.Add(c.life)}
	return text
}

// Take uses a code up, be it for the right place or not.
func (c *Codes) Take(place, text string) (Proof, bool) {
	if len(text) > maxSecretText {
		return Proof{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	hash := digest(sha256.Sum256([]byte(text)))
	g, known := c.given[hash]
	delete(c.given, hash)
	if !known || g.place != place || !c.now().Before(g.until) {
		return Proof{}, false
	}
	return g.proof, true
}

// Keep is Take for a word that is used again and again until it is over.
func (c *Codes) Keep(place, text string) (Proof, bool) {
	if len(text) > maxSecretText {
		return Proof{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g, known := c.given[digest(sha256.Sum256([]byte(text)))]
	if !known || g.place != place || !c.now().Before(g.until) {
		return Proof{}, false
	}
	return g.proof, true
}
