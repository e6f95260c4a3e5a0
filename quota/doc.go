// Package quota keeps the ledger of GPU seconds: it reserves them before a call and charges them after it. It also counts the
// calls that were granted a GPU.
//
// # Terms
//
//   - An identity is an account (identity.Identity.Key). All amounts are GPU seconds times the Factor of a size.
//   - A Tier defines the quota of an identity, its longest call and its priority. Presets are Hugging Face's tiers.
//   - A Window is the span of 24 hours (Span) in which an identity's charges count against its quota.
//   - A hold reserves seconds for a lease. Its settlement charges a part of it and refunds the rest.
//   - A run is a call that was granted a GPU. It counts against the tier's limit for a Span from the activation of its lease,
//     and does not end with a window. A hold reserves a run.
//   - Credits are prepaid seconds without a window. A hold uses them for what the quota does not suffice.
//   - A grant adds quota to the current window, or runs for a Span. A reset refunds all charges of the current window and
//     returns the runs of ended leases. A credit adds credits.
//   - Via names a Space that spends an identity's quota through another Space (delegation). All Spaces together may spend
//     at most half of what would be left without their spending.
//
// # Types
//
// Ledger is the only type with access to the tables windows, ledger, runs and credits. Package lease calls Hold, Open and
// Settle inside its own transactions, so that a hold and its lease's row are committed together. The host, console,
// deviceapi and hubapi read Balance, Runs, List and Entries, and an operator's command calls Grant, Credit and Reset.
// Refusals remembers the last refused calls in memory.
//
// # Entries of a lease
//
//	            Hold, within quota
//	(nothing) ─────────────────────▶ held ──Settle──▶ settled: charged + refunded = held
//	    │                                                │
//	    └── Hold, beyond quota ──▶ refused               │ Forget, after the retention time
//	        (nothing is written)                         ▼
//	                                                  deleted
//
// Settle runs exactly once per lease: a second call returns a *SettledError. A hold belongs to the window that was current
// at admission, and so does its charge, even if the lease ends in a later window. The part of a hold that comes from the
// credits is fixed at admission; a charge uses the part of the quota first.
//
// # Run of a lease
//
//	(no row) ──Hold──▶ reserved ──Open, or Hold with Start──▶ counted ──24 h──▶ ended ──Forget──▶ deleted
//	                      │                                      │
//	                      └── Settle: never granted, or the ─────┴──▶ (no row)
//	                          client never learned of it
//
// Settle counts a reserved run whose lease was granted a GPU and did not become active. Reset returns counted runs. Reanchor
// moves runs that a clock which was ahead has counted.
//
// # Windows
//
//	(no row) ──first Hold or Grant──▶ unopened ──Open: a lease became active──▶ open ──24 h──▶ ended ──Forget──▶ deleted
//
// An unopened window has no end: quota used in it stays used until a lease becomes active. After the end of a window the
// next Hold or Grant creates another one. Only an identity's latest window counts, so a clock that steps back does not
// revive an older one. Reanchor repairs windows that were opened by a clock that was ahead.
//
// # Failures
//
// A refusal is a Refused and writes nothing: *IllegalDurationError, *RunsExceededError, *ExceededError or
// *CreditsPendingError, checked in this order. Every entry is append-only. Triggers keep the sums of each window, and those of
// the credits, equal to their entries. `spacehost db check` verifies them, and compares each run with its settlement.
package quota
