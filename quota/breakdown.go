package quota

import "time"

// Dimension is what sums of calls are grouped by.
type Dimension string

// The Dimensions.
const (
	ByPerson   Dimension = "person" // the payer, also one without a name
	BySpace    Dimension = "space"
	ByFunction Dimension = "function" // of a Space
	ByTier     Dimension = "tier"     // at the time of the call
)

// Dimensions are all of them, in the order in which they are offered.
var Dimensions = []Dimension{ByPerson, BySpace, ByFunction, ByTier}

// Columns returns the SQL columns of a Dimension, which the tables leases and refusals share: that of the key, and that of the
// Space of a function, ” for the others.
func (d Dimension) Columns() (key, space string) {
	switch d {
	case BySpace:
		return "space", "''"
	case ByFunction:
		return "function", "space"
	case ByTier:
		return "tier", "''"
	}
	return "identity", "''"
}

// Breakdown selects calls by the time of their end, and groups them. Its parts are numbered from 0.
type Breakdown struct {
	From, To time.Time // To is excluded
	Part     time.Duration
	By       Dimension
}

// Parts returns the number of parts; the last one may be shorter.
func (b Breakdown) Parts() int {
	return int((b.To.Sub(b.From) + b.Part - 1) / b.Part)
}
