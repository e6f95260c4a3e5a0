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
	who, _, err := r.consoleCaller(req, people.ScopeCall)
	return who, err
}

// AccountReader is ConsoleIdentity for a request that reads the account, with the limit of its token. Errors: also
// *people.RightsError.
func (r *Rule) AccountReader(req *http.Request) (reader identity.Identity, limit people.SpaceLimit, err error) {
	return r.consoleCaller(req, people.ScopeRead)
}

func (r *Rule) consoleCaller(req *http.Request, scope people.Scope) (who identity.Identity, limit people.SpaceLimit, err error) {
	if _, ok := people.Bearer(req.Header); !ok {
		if s, ok := r.CallingSpace(req); ok {
			return s.Account(), nil, nil
		}
		who, err = r.identify(req, scope, "")
		return who, nil, err
	}
	proof, err := r.Authenticate(req)
	if err == nil {
		err = proof.Allow(scope, "")
	}
	if err != nil {
		return identity.Identity{}, nil, err
	}
	return r.withTier(proof.Who), proof.SpaceLimit(), nil
}

// linkProof returns the proof of the link behind a bearer token from RedeemLink; false for any other token.
func (r *Rule) linkProof(bearer string) (people.Proof, bool) {
	return r.bearers.Verify(atConsole, strings.TrimPrefix(bearer, people.TokenPrefix))
}
