// Package payer decides which account pays for a request.
//
// # Terms
//
// The payer is an identity.Identity. The caller of a Space is the party that sent the request: a visitor, a signed-in
// user, or another Space that forwards the X-IP-Token of its visitor (a delegation). An allowance is the quota.Tier
// that an account has, with the overrides of that user applied.
//
// # Types
//
// Rule holds the whole rule. internal/host creates one per host and implements Spaces and Space, through which the rule
// reads the state of running Spaces. gradioapi and the console call Rule.Caller, Rule.SignedInUser and
// Rule.ConsoleIdentity; internal/deviceapi, internal/hubapi and the account pages call Rule.Allowance and
// Rule.CurrentAllowance. Every method is safe for concurrent use.
//
// # The path of an X-IP-Token
//
//	visitor -> Space A          Rule.Caller(r, A) finds the payer; the host signs a token for the Event
//	Space A -> Space B          Rule.Caller(r, B) verifies that token (Rule.delegated) and charges A's visitor, via A
//	page around A -> page of A  Rule.SignPage signs a token in identity mode hub; Rule.Caller(r, A) reads it from the call (Rule.ofPage)
//	spaces package -> host      internal/deviceapi verifies the token again at /schedule; Spaces.Alive keeps it valid
//
// # Failure handling
//
// A credential that is present and invalid is an error (*token.Error, *people.UnknownTokenError,
// *people.DelegationDeniedError) and never a fallback to another account. A request without any credential is charged
// to its address.
package payer
