package payer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
)

// PageVisitor returns the person whom the page around a Space stands for: the sign-in of the browser, or under `run` the local
// visitor. ok is false for all other clients, which pay by address, and for processes of Spaces. Errors: of the database.
func (r *Rule) PageVisitor(req *http.Request, space string) (visitor identity.Identity, ok bool, err error) {
	visitor, ok, err = r.BrowserUser(req, space)
	if ok || err != nil || r.config.Shared {
		return visitor, ok, err
	}
	_, bearer := people.Bearer(req.Header)
	if _, space := r.CallingSpace(req); space || bearer {
		return identity.Identity{}, false, nil
	}
	visitor, err = r.identify(req, people.ScopeCall, space)
	return visitor, visitor.Kind == identity.Local, err
}

// SignPage returns the X-IP-Token that the page around a Space gives to the Space's page for one call, as the Hub's page does
// (docs/design/0039-bar.md). It is valid for token.PageLifetime, at that Space only.
func (r *Rule) SignPage(space string, visitor identity.Identity) (string, error) {
	return r.config.Signer.Sign(token.Claims{Aud: space, Sub: visitor.Key(), Tier: visitor.Tier, ID: rand.Text(), Page: true})
}

// ofPage returns the visitor of a page's token. Errors: *token.Error, or of the database.
//
//  1. The token counts at its own Space.
//  2. It comes from a browser. A Space that has read it in its visitor's page cannot spend with it from its own process.
//  3. A removed person is no visitor.
func (r *Rule) ofPage(req *http.Request, claims token.Claims, at string) (identity.Identity, error) {
	if claims.Aud != at { // 1
		return identity.Identity{}, &token.Error{Reason: token.WrongAudience}
	}
	if _, ok := r.CallingSpace(req); ok { // 2
		return identity.Identity{}, &token.Error{Reason: token.Ended}
	}
	visitor, err := claims.Identity()
	if err != nil {
		return identity.Identity{}, err
	}
	removed, err := r.isRemoved(req.Context(), visitor)
	if removed { // 3
		return identity.Identity{}, &token.Error{Reason: token.Ended}
	}
	if err != nil {
		return identity.Identity{}, fmt.Errorf("look up %s: %w", visitor, err)
	}
	tier, err := r.currentTier(req.Context(), visitor)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("tier of %s: %w", visitor, err)
	}
	visitor.Tier = tier.Name
	return visitor, nil
}

// isRemoved reports whether a visitor is a person whom the host does not have any more. The row of a removed person stays, as former.
func (r *Rule) isRemoved(ctx context.Context, visitor identity.Identity) (bool, error) {
	if visitor.Kind != identity.User {
		return false, nil
	}
	person, err := r.config.People.Get(ctx, visitor.Name)
	if errors.As(err, new(*people.UnknownPersonError)) {
		return true, nil
	}
	return err == nil && person.Source == people.Former, err
}
