package main

import (
	"fmt"
	"net/http"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/token"
	"spacehost/queue"
	"spacehost/server"
)

// headerToken is where a Space hands on its visitor's token (spaces/zero/client.py, TOKEN_HEADER).
const headerToken = "X-Ip-Token"

// caller says who calls this Space.
func (s *spaceRun) caller(r *http.Request) (identity.Identity, error) {
	return s.host.caller(r, s)
}

// caller says who calls the Space at.
//
//  1. Who brings an X-IP-Token is a Space that calls on behalf of its visitor, who pays. One that is no longer good is
//     an error, and no silent fall to another account.
//  2. The visitor pays also if a bearer token of ours stands beside it: gradio_client sends a saved one by itself, and
//     it would have the Space's author pay for everybody, while the header stands there because the Space's code
//     wants it. The bearer must be good all the same: who goes on using a revoked one should notice.
//  3. Without either, a browser in which somebody has signed in at this Space is theirs.
//  4. Without any, a connection of one of our Spaces' processes is that Space's call, for its own account.
//  5. Everybody else: see identify. What a browser brings may not count as on the Hub (onHub); a token always does.
func (h *Host) caller(r *http.Request, at *spaceRun) (identity.Identity, error) {
	tokens, through := r.Header[headerToken]
	_, bearer := people.Bearer(r.Header)
	if bearer && through { // 2
		if _, err := h.identify(r); err != nil {
			return identity.Identity{}, err
		}
	}
	if through { // 1
		return h.throughSpace(r, tokens, at.space.Name)
	}
	if bearer {
		return h.identify(r)
	}
	who, signedIn, err := at.signedIn(r) // 3
	if err != nil {
		return identity.Identity{}, fmt.Errorf("look up a sign-in: %w", err)
	}
	if !signedIn {
		if s := h.callingSpace(r); s != nil { // 4
			return s.account(), nil
		}
		if who, err = h.identify(r); err != nil { // 5
			return identity.Identity{}, err
		}
		who = at.fallen(r, who)
	}
	if h.settings.isHub() {
		return at.onHub(r, who)
	}
	return who, nil
}

// throughSpace is the visitor whose token a Space brings. Errors: *token.Error, *people.DelegationDeniedError.
//
//  1. The token is ours, of whichever Space; that it is not its own is what a Space needs it for.
//  2. Its Session there is open, or its direct call under way, or was within ten minutes; 24 hours at most (Parse).
//  3. Nobody has forbidden the Space, nor the one before it, to spend what is this visitor's.
//  4. A Space that calls itself during the visitor's call, as Gradio's MCP server does, is still about that call.
func (h *Host) throughSpace(r *http.Request, tokens []string, at string) (identity.Identity, error) {
	if len(tokens) != 1 { // which of two is meant nobody knows
		return identity.Identity{}, &token.Error{Reason: token.Malformed}
	}
	claims, err := h.signer.Parse(tokens[0]) // 1
	if err != nil {
		return identity.Identity{}, err
	}
	if !h.isPresent(claims) { // 2
		return identity.Identity{}, &token.Error{Reason: token.Ended}
	}
	payer, err := claims.Identity()
	if err != nil {
		return identity.Identity{}, err
	}
	before := payer
	if claims.Aud != at || !h.Alive(at, claims.ID) { // 4
		payer.Via = claims.Aud
	}
	for _, spender := range []identity.Identity{before, payer} { // 3
		if err := h.stops.Check(spender); err != nil {
			return identity.Identity{}, err
		}
	}
	tier, err := h.tierOf(r.Context(), payer) // of now: the token may be a day old
	if err != nil {
		return identity.Identity{}, fmt.Errorf("tier of %s: %w", payer, err)
	}
	payer.Tier = tier.Name
	return payer, nil
}

// isPresent reports whether the visitor is still there, at the Space that the token was made for.
func (h *Host) isPresent(c token.Claims) bool {
	s := h.find(c.Aud)
	switch {
	case s == nil: // of an earlier start with other Spaces
		return false
	case c.Session != "":
		return s.queue.IsOpen(c.Session)
	}
	return s.queue.IsRecent(queue.EventID(c.ID), c.IssuedAt)
}

// callingSpace returns the Space that a request without any token comes from, nil if that is none of ours.
func (h *Host) callingSpace(r *http.Request) *spaceRun {
	conn := server.ConnOf(r.Context())
	if conn == nil || !conn.IsLocal() {
		return nil
	}
	return h.find(conn.Owner(h.processes.SpaceAt))
}
