// Package identity defines Identity, the account that pays for a call.
//
// # Terms
//
//   - An Identity is a payer: the local visitor, an IP address (an IPv6 address counts by its /64), a named user, or a
//     Space.
//   - The Key of an Identity is its name in the ledger, in logs and in tokens. ParseKey is the inverse.
//   - Via is the Space that calls on behalf of the Identity (delegation). Fallback is the reason why a signed-in user pays
//     by address.
//
// # Functions
//
// The host calls FromAddr for each request without a token. It calls Anonymous in the mode hub, where a user of this
// machine who is not signed in pays like any other address.
// Nearly all packages use Identity and its Key. The package has no state.
//
// # Failures
//
// FromAddr and ParseKey return an error for text that they do not accept. Their errors contain a bounded part of the input.
package identity
