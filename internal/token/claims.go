package token

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"spacehost/internal/identity"
)

// Issuer is the iss claim of all tokens of spacehost.
const Issuer = "spacehost"

// Lifetime is the maximum validity of a token. The end of its Event may end it earlier.
const Lifetime = 24 * time.Hour

// PageLifetime is the validity of a token for the page around a Space, which requests one for each call.
const PageLifetime = time.Minute

// Claims are the contents of an X-IP-Token.
type Claims struct {
	Iss       string    // Sign writes Issuer
	Aud       string    // the only Space that may use the token
	Sub       string    // Identity.Key
	Tier      string    // of Sub
	ID        string    // jti: the Event
	Session   string    // sid: digest of the Event's Session; empty for a direct call
	IssuedAt  time.Time // zero: now
	ExpiresAt time.Time // zero: IssuedAt + Lifetime, or PageLifetime
	Act       string    // the Space that called on the visitor's behalf, if any
	Page      bool      // made for the page around the Space, for its visitor; belongs to no Event
	Error     string    // reason for a fallback to the address, if any; the spaces package shows it
}

// Identity returns the payer, with Act as Via.
func (c Claims) Identity() (identity.Identity, error) {
	id, err := identity.ParseKey(c.Sub)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("read subject of token: %w", err)
	}
	id.Tier, id.Via = c.Tier, c.Act
	return id, nil
}

// payload is the JSON form of Claims: one audience as plain text, times in whole seconds. The spaces package decodes it by
// base64 and json.loads without verification (spaces 0.51.3, zero/utils.py: jwt_payload).
type payload struct {
	Iss   string           `json:"iss"`
	Aud   string           `json:"aud"`
	Sub   string           `json:"sub"`
	Tier  string           `json:"tier"`
	ID    string           `json:"jti"`
	Sid   string           `json:"sid,omitempty"`
	Iat   *jwt.NumericDate `json:"iat"`
	Exp   *jwt.NumericDate `json:"exp"`
	Act   string           `json:"act,omitempty"`
	Page  bool             `json:"page,omitempty"`
	Error string           `json:"error,omitempty"`
}

var _ jwt.ClaimsValidator = (*payload)(nil)

func newPayload(c Claims) *payload {
	return &payload{
		Iss: Issuer, Aud: c.Aud, Sub: c.Sub, Tier: c.Tier, ID: c.ID, Sid: c.Session,
		Iat: jwt.NewNumericDate(c.IssuedAt), Exp: jwt.NewNumericDate(c.ExpiresAt), Act: c.Act, Page: c.Page, Error: c.Error,
	}
}

func (p *payload) claims() Claims {
	return Claims{
		Iss: p.Iss, Aud: p.Aud, Sub: p.Sub, Tier: p.Tier, ID: p.ID, Session: p.Sid,
		IssuedAt: p.Iat.UTC(), ExpiresAt: p.Exp.UTC(), Act: p.Act, Page: p.Page, Error: p.Error,
	}
}

// Validate is called by the parser after the signature, in addition to the parser's own checks of iss, iat and exp.
func (p *payload) Validate() error {
	if p.Aud == "" {
		return errNoAudience
	}
	if p.Iat == nil {
		return errNoIssuedAt
	}
	if _, err := identity.ParseKey(p.Sub); err != nil {
		return errBadSubject
	}
	return nil
}

// These methods implement jwt.Claims.

func (p *payload) GetExpirationTime() (*jwt.NumericDate, error) { return p.Exp, nil }
func (p *payload) GetIssuedAt() (*jwt.NumericDate, error)       { return p.Iat, nil }
func (p *payload) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (p *payload) GetIssuer() (string, error)                   { return p.Iss, nil }
func (p *payload) GetSubject() (string, error)                  { return p.Sub, nil }
func (p *payload) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{p.Aud}, nil }
