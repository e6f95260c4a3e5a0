// Package token signs and verifies X-IP-Token, the header that names the account of a call.
//
// # Terms
//
//   - A token is a JWT signed with HS256. Its audience is one Space and its subject is the Key of an Identity.
//   - Claims are the contents of a token. The spaces package decodes them without verification.
//   - A kid names one key file in the state folder, keys/<kid>.key.
//
// # Types
//
// The host opens one Signer per state folder with OpenSigner. It calls Sign when an Event starts, and Parse or VerifyFor
// when a Space sends the token back with a request for a GPU or a call to another Space.
//
// # States of a token
//
//	signed ──IssuedAt - 1 min──▶ valid ──ExpiresAt + 1 min──▶ expired
//
// A token of an Event expires after a day (Lifetime), one of the page around a Space after a minute (PageLifetime).
// The tolerance of one minute allows for a clock that was set back. The end of the Event or Session also ends a token: the
// host checks that and refuses it with the Reason Ended.
//
// # Failures
//
// Parse and VerifyFor refuse with an *Error, which has a Reason and never contains the token. OpenSigner refuses key files
// that other users of the machine can read or write, because the key allows to act as any account.
package token
