package token

import (
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken is the maximum length of a token in bytes: header lines must fit into a server's buffer.
const maxToken = 8 << 10

// leeway is the tolerance of iat and exp for a clock that was set.
const leeway = time.Minute

// method is the only accepted algorithm. A token's header is compared with it and never selects an algorithm.
var method = jwt.SigningMethodHS256

// Signer signs and verifies the X-IP-Tokens of this host. It may be used by many goroutines.
type Signer struct {
	Now func() time.Time // wall clock, set before the first use; nil is the real one

	kid    string            // the signing key
	keys   map[string][]byte // all accepted keys, by kid
	parser *jwt.Parser
}

// OpenSigner loads the keys of the state folder dir. At the first start it creates a key.
func OpenSigner(dir string) (*Signer, error) {
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, fmt.Errorf("open signing keys of %s: %w", dir, err)
	}
	return newSigner(keys), nil
}

func newSigner(keys map[string][]byte) *Signer {
	s := &Signer{keys: keys, kid: signingKid(keys)}
	s.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{method.Alg()}),
		jwt.WithIssuer(Issuer),
		jwt.WithIssuedAt(),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(leeway),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(s.now),
	)
	return s
}

// Sign returns a token with the claims c. It refuses claims that Parse would refuse, so that a mistake is found at its
// origin.
func (s *Signer) Sign(c Claims) (string, error) {
	if c.IssuedAt.IsZero() {
		c.IssuedAt = s.now()
	}
	if c.ExpiresAt.IsZero() {
		life := Lifetime
		if c.Page {
			life = PageLifetime
		}
		c.ExpiresAt = c.IssuedAt.Add(life)
	}
	p := newPayload(c)
	if err := p.Validate(); err != nil {
		return "", fmt.Errorf("sign token for %q: %w", c.Aud, err)
	}
	t := jwt.NewWithClaims(method, p)
	t.Header["kid"] = s.kid
	token, err := t.SignedString(s.keys[s.kid])
	if err != nil {
		return "", fmt.Errorf("sign token for %q: %w", c.Aud, err)
	}
	if len(token) > maxToken {
		return "", fmt.Errorf("sign token for %q: %d bytes exceed the maximum of %d", c.Aud, len(token), maxToken)
	}
	return token, nil
}

// Parse verifies a token of this host, or refuses it with an *Error. It does not check the Space in Aud; VerifyFor does.
func (s *Signer) Parse(token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, &Error{Reason: TooLong}
	}
	// Go's base64 skips line ends, so one token would have many spellings.
	if strings.ContainsAny(token, "\r\n") {
		return Claims{}, &Error{Reason: Malformed}
	}
	var p payload
	if _, err := s.parser.ParseWithClaims(token, &p, s.keyOf); err != nil {
		return Claims{}, newTokenError(err)
	}
	return p.claims(), nil
}

// VerifyFor is Parse for a token that was sent by the named Space.
func (s *Signer) VerifyFor(token, space string) (Claims, error) {
	c, err := s.Parse(token)
	if err != nil {
		return Claims{}, err
	}
	if c.Aud != space {
		return Claims{}, &Error{Reason: WrongAudience}
	}
	return c, nil
}

// keyOf looks up the kid only in the Signer's keys. A valid header has three fields, so a header that contains or refers
// to a key of its own (jwk, jku, x5u, x5c) is refused by its field names.
func (s *Signer) keyOf(t *jwt.Token) (any, error) {
	for name := range t.Header {
		if name != "alg" && name != "typ" && name != "kid" {
			return nil, errHeader
		}
	}
	kid, _ := t.Header["kid"].(string)
	key, ours := s.keys[kid]
	if !ours {
		return nil, errForeignKey
	}
	return key, nil
}

func (s *Signer) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}
