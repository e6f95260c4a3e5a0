package payer

import (
	"net/http"
	"strings"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// atConsole is the place for which the codes of one-time links are issued.
const atConsole = "console"

// NewLinkCode returns the code of a link that signs the local visitor in at the console, once.
func (r *Rule) NewLinkCode() string { return r.links.Give(atConsole, people.LocalProof()) }

// RedeemLink exchanges the code of a link for a bearer token that is valid only at the console.
func (r *Rule) RedeemLink(code string) (bearer string, ok bool) {
	proof, ok := r.links.Take(atConsole, code)
	if !ok {
		return "", false
	}
	return people.TokenPrefix + r.bearers.Give(atConsole, proof), true
}

// Authenticate returns the proof of a request to the console: that of a console link, or of a bearer token. Errors:
// *people.UnknownTokenError.
func (r *Rule) Authenticate(req *http.Request) (people.Proof, error) {
	bearer, ok := people.Bearer(req.Header)
	if !ok {
		return people.Proof{}, &people.UnknownTokenError{}
	}
	if proof, ok := r.linkProof(bearer); ok {
		return proof, nil
	}
	return r.config.People.ProofOf(req.Context(), bearer)
}

// ConsoleIdentity returns the account that the console shows to a client. A process of a Space sees only the Space's
// own account: what its visitors spend elsewhere is private.
func (r *Rule) ConsoleIdentity(req *http.Request) (identity.Identity, error) {
	bearer, ok := people.Bearer(req.Header)
	if !ok {
		if s, ok := r.CallingSpace(req); ok {
			return s.Account(), nil
		}
		return r.identify(req)
	}
	if proof, ok := r.linkProof(bearer); ok {
		return r.withTier(proof.Who), nil
	}
	return r.identify(req)
}

// linkProof returns the proof of the link behind a bearer token from RedeemLink; false for any other token.
func (r *Rule) linkProof(bearer string) (people.Proof, bool) {
	return r.bearers.Verify(atConsole, strings.TrimPrefix(bearer, people.TokenPrefix))
}
