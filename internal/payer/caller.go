package payer

import (
	"fmt"
	"net/http"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/internal/web"
	"spacehost/server"
)

// tokenHeader carries the visitor's token from one Space to another (spaces/zero/client.py, TOKEN_HEADER).
const tokenHeader = "X-Ip-Token"

// Caller returns the account that pays for a request to the Space at.
//
//  1. A request with an X-IP-Token comes from a Space that calls on behalf of its visitor. The visitor pays. An expired
//     or invalid token is an error, never a fallback to another account.
//  2. The visitor also pays if a bearer token of this host accompanies the X-IP-Token: gradio_client adds a saved bearer
//     on its own, which would charge the Space's author for every visitor, while the Space's code sets X-IP-Token on
//     purpose. The bearer must be valid all the same, so that the use of a revoked one is noticed.
//  3. Without either header, the sign-in of the browser at this Space counts.
//  4. Without a sign-in, a connection owned by a process of a Space is a call of that Space, on its own account.
//  5. Any other request is charged by identify. In identity mode `hub`, a browser's identity may be dropped (onHub); a
//     token is always honoured.
func (r *Rule) Caller(req *http.Request, at Space) (identity.Identity, error) {
	tokens, delegated := req.Header[tokenHeader]
	_, bearer := people.Bearer(req.Header)
	if bearer && delegated { // 2
		if _, err := r.identify(req, people.ScopeCall, at.Name()); err != nil {
			return identity.Identity{}, err
		}
	}
	if delegated { // 1
		return r.delegated(req, tokens, at.Name())
	}
	if bearer {
		return r.identify(req, people.ScopeCall, at.Name())
	}
	payer, signedIn, err := r.BrowserUser(req, at.Name()) // 3
	if err != nil {
		return identity.Identity{}, fmt.Errorf("look up a sign-in: %w", err)
	}
	if !signedIn {
		if s, ok := r.CallingSpace(req); ok { // 4
			return s.Account(), nil
		}
		if payer, err = r.identify(req, people.ScopeCall, at.Name()); err != nil { // 5
			return identity.Identity{}, err
		}
		payer = withExpiredSignIn(req, at.Name(), payer)
	}
	if r.config.Hub {
		return r.onHub(req, at, payer)
	}
	return payer, nil
}

// delegated returns the visitor whose token a Space forwards. Errors: *token.Error, *people.DelegationDeniedError.
//
//  1. The token was signed by this host. Its audience is the calling Space, not the Space that is called.
//  2. Its Session at that Space is open, or its direct call runs, or either ended less than ten minutes ago; 24 hours at
//     most (token.Signer.Parse).
//  3. Neither the calling Space nor the one before it is on the delegation deny list for this visitor.
//  4. A Space that calls itself during the visitor's call, as Gradio's MCP server does, still serves that call: the
//     charge is not marked as delegated.
//  5. A token of the page around a Space has rules of its own (ofPage).
func (r *Rule) delegated(req *http.Request, tokens []string, at string) (identity.Identity, error) {
	if len(tokens) != 1 { // ambiguous
		return identity.Identity{}, &token.Error{Reason: token.Malformed}
	}
	claims, err := r.config.Signer.Parse(tokens[0]) // 1
	if err != nil {
		return identity.Identity{}, err
	}
	if claims.Page { // 5
		return r.ofPage(req, claims, at)
	}
	if !r.config.Spaces.IsOpen(claims) { // 2
		return identity.Identity{}, &token.Error{Reason: token.Ended}
	}
	payer, err := claims.Identity()
	if err != nil {
		return identity.Identity{}, err
	}
	before := payer
	if claims.Aud != at || !r.config.Spaces.Alive(at, claims.ID) { // 4
		payer.Via = claims.Aud
	}
	for _, spender := range []identity.Identity{before, payer} { // 3
		if err := r.config.Denied.Check(spender); err != nil {
			return identity.Identity{}, err
		}
	}
	tier, err := r.currentTier(req.Context(), payer) // the token may be a day old
	if err != nil {
		return identity.Identity{}, fmt.Errorf("tier of %s: %w", payer, err)
	}
	payer.Tier = tier.Name
	return payer, nil
}

// CallingSpace returns the Space whose process sent a request; false if the client is not a process of a Space.
func (r *Rule) CallingSpace(req *http.Request) (Space, bool) {
	conn := server.ConnOf(req.Context())
	if conn == nil || !conn.IsLocal() {
		return nil, false
	}
	return r.config.Spaces.Find(conn.Owner(r.config.Processes.SpaceAt))
}

// identify returns the user of a bearer token that allows a scope at a Space ("": at the console), else the account of the
// client's address. A revoked token, or one with too few rights, is an error, never a fallback to the address.
func (r *Rule) identify(req *http.Request, scope people.Scope, space string) (identity.Identity, error) {
	bearer, ok := people.Bearer(req.Header)
	if !ok {
		return identity.FromAddr(req.RemoteAddr, identity.AddrTiers{Local: r.config.LocalTier})
	}
	payer, err := r.config.People.Use(req.Context(), bearer, scope, space)
	if err == nil {
		payer.Tier = r.knownTier(payer.Tier).Name
	}
	return payer, err
}

// BrowserUser returns the user signed in at a Space with the browser that sent a request; false if none is. A sign-in
// counts only for the Space's own pages and for clients other than browsers: otherwise a page of another site could
// spend the visitor's quota.
func (r *Rule) BrowserUser(req *http.Request, space string) (user identity.Identity, ok bool, err error) {
	cookie := web.Cookies{Space: space}.SignIn(req)
	if cookie == "" || !server.IsOwnPage(req, web.ReceivedHost(req)) {
		return identity.Identity{}, false, nil
	}
	user, ok, err = r.config.People.SignedIn(req.Context(), space, cookie)
	return r.withTier(user), ok, err
}

// SignedInUser returns the user of a bearer token or of a browser sign-in, regardless of the payer. Without either, the
// Identity has no Kind.
func (r *Rule) SignedInUser(req *http.Request, space string) (identity.Identity, error) {
	if bearer, ok := people.Bearer(req.Header); ok {
		return r.config.People.Use(req.Context(), bearer, people.ScopeCall, space)
	}
	user, ok, err := r.BrowserUser(req, space)
	if !ok {
		return identity.Identity{}, err
	}
	return user, err
}

// withExpiredSignIn marks a payer whose browser sends a sign-in that has ended, so that the visitor learns the reason
// for being charged by address.
func withExpiredSignIn(req *http.Request, space string, payer identity.Identity) identity.Identity {
	cookie := web.Cookies{Space: space}.SignIn(req)
	if cookie != "" && server.IsOwnPage(req, web.ReceivedHost(req)) && req.Method == http.MethodPost {
		payer.Fallback = "your sign-in here has ended: open /__spacehost/login to sign in again"
	}
	return payer
}
