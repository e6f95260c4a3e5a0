// Package people stores the named users of a host: their tiers, tokens, browser sign-ins and delegation denials.
//
// # Terms
//
//   - A Person is a user that the operator knows by name. The account in the ledger is "user:" + Name.
//   - Overrides are values that replace those of the person's tier.
//   - A Token is a bearer token (sph_...) of a person. Only its SHA-256 is stored.
//   - Rights are what a token allows: a Scope, Spaces and an expiry. Rights.Allow is the one rule.
//   - A sign-in is a browser that was signed in at one Space, by a token or by the host's own link. Only the hash of its
//     cookie is stored.
//   - A Denial forbids a Space to spend its visitors' quota through other Spaces (delegation).
//
// # Types
//
// Store is the table of persons, tokens and sign-ins. The host calls ByToken and SignedIn for each request, the console
// and the command line call the other methods, and Declare applies the configuration file at each start. Codes holds
// one-time codes in memory. DelegationDenyList holds the Denials. Bearer reads a token from a request's headers.
//
// # Sources of a person
//
//	           Add (spacehost user add)
//	(none) ──────────────────────────────▶ operator
//	  │                                       ▲
//	  │ Declare                               │ Add
//	  ▼       no longer declared              │
//	config ─────────────────────────────▶ former
//	  ▲                                       │
//	  └──────────── Declare again ────────────┘
//
// Only the operator's persons can be changed by Set, Remove and CreateToken. People of the configuration create tokens by
// CreateOwnToken, which end when the file drops the person. A former person has no valid token.
//
// # States of a token
//
//	valid ──Revoke, or dropped from the configuration──▶ revoked ──Forget──▶ deleted (also expired ones)
//	  ▲                                                     │
//	  └──────── declared again (configuration only) ────────┘
//
// A valid token expires at the time in its Rights. ByToken refuses it from then on, and EndExpired calls Ended.
//
// # Caching and failures
//
// ByToken, SignedIn and OverridesOf answer from memory. Each committed change resets the caches, so a revoked token is
// refused as soon as Revoke has returned. A database error is returned as such and never as an unknown token. The time of
// the last use is written in the background, and a failed write is dropped.
package people
