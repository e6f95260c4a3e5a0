package token

import (
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken is the longest token, in bytes: header lines have to fit into a server's buffer.
const maxToken = 8 << 10

// skew is how far the clock may have stepped back since a token was issued, or past its end.
const skew = time.Minute

// method is the one algorithm. What a token's header says about itself is compared with it and chooses nothing.
var method = jwt.SigningMethodHS256

// Signer signs and reads the X-IP-Tokens of this host. It may be used by many goroutines.
type Signer struct {
	Now func() time.Time // wall clock, set before the first use; nil is the real one

	kid    string            // of the key that signs
	keys   map[string][]byte // all that may have signed, by kid
	parser *jwt.Parser
}

// OpenSigner takes the key of the state folder dir, and makes one if this is its first start.
func OpenSigner(dir string) (*Signer, error) {
	keys, err := openKeys(dir)
	if err != nil {
		return nil, fmt.Errorf("open signing keys of %s: %w", dir, err)
	}
	return newSigner(keys), nil
}

func newSigner(keys map[string][]byte) *Signer {
	s := &Signer{keys: keys, kid: firstKid(keys)}
	s.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{method.Alg()}),
		jwt.WithIssuer(Issuer),
		jwt.WithIssuedAt(),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(skew),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(s.now),
	)
	return s
}

// Sign makes a token of c. It refuses claims that Parse would refuse, so that the fault shows where it is made.
func (s *Signer) Sign(c Claims) (string, error) {
	if c.IssuedAt.IsZero() {
		c.IssuedAt = s.now()
	}
	if c.ExpiresAt.IsZero() {
		c.ExpiresAt = c.IssuedAt.Add(Lifetime)
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
		return "", fmt.Errorf("sign token for %q: %d bytes, more than %d", c.Aud, len(token), maxToken)
	}
	return token, nil
}

// Parse reads a token of ours, or refuses it with a *Error. Which Space it is for is in Aud: VerifyFor asks that.
func (s *Signer) Parse(token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, &Error{Reason: TooLong}
	}
	// Go's base64 skips line ends, so there would be many spellings of one token.
	if strings.ContainsAny(token, "\r\n") {
		return Claims{}, &Error{Reason: Malformed}
	}
	var p payload
	if _, err := s.parser.ParseWithClaims(token, &p, s.keyOf); err != nil {
		return Claims{}, newTokenError(err)
	}
	return p.claims(), nil
}

// VerifyFor is Parse for a token that the named Space has brought.
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

// keyOf looks kid up in our table and nowhere else. A header of ours has three names, so one that brings or points
// to a key of its own (jwk, jku, x5u, x5c) is refused by its names alone.
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
