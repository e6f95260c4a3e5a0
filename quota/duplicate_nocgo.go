//go:build !cgo

package quota

// isDuplicate belongs to the ledger, which no build without cgo can open: go-sqlite3 has no types then. Such a build uses
// the tiers alone.
func isDuplicate(error) bool { return false }
