// Package nodes stores which machines may serve a front as nodes, and the join tokens of those that have yet to join.
//
// # Terms
//
//   - A [Node] is a machine that has joined a front. Its fingerprint is the SHA-256 of the agent's public key.
//   - A join token allows agents to join under one name, or under names with a prefix ([Pattern]). It has a number of uses and an
//     expiry. Only the hash of its secret is stored. Package link makes and reads its text.
//   - A drain takes a node out of service with a reason, until it is returned.
//   - [Leaving] is what an agent reports about the end of its machine. It is not stored.
//
// # Types
//
// The host creates one [Store]. The front redeems join tokens with Redeem, checks each connection with Authorize, and notes what an agent
// reports with Seen. The commands of `spacehost node` call the other methods through package control.
//
// # States of a node
//
//	(none) ──Redeem──▶ joined ──Revoke──▶ revoked ──Forget──▶ (none)
//	                     │                                      ▲
//	                     └───────────────Forget─────────────────┘
//
// Authorize admits joined nodes only. A name is free again after Forget, which is refused while the node has open leases. A drain is no
// state of its own: a drained node stays connected.
//
// # Failures
//
// Each method is one transaction. A refusal is a typed error with the next step of the operator in its text. Any other error is one
// of the database.
package nodes
