package quota

import "time"

// Balance is where an identity stands.
type Balance struct {
	Identity  string
	Unlimited bool
	Base      time.Duration // the tier's quota and what an operator granted in this Window
	Charged   time.Duration
	Held      time.Duration
	Granted   time.Duration
	Left      time.Duration // never negative; meaningless if Unlimited
	Opened    *time.Time    // nil before the first use in this Window
	ResetsAt  *time.Time    // nil before the first use in this Window
}

// For is the same account seen with a tier: it fills in Base, Left and Unlimited, which the ledger does not know.
func (b Balance) For(t Tier) Balance {
	b.Unlimited = t.Unlimited
	b.Base = t.Quota + b.Granted
	b.Left = max(0, b.Base-b.Charged-b.Held)
	return b
}

func (w window) balance(identity string) Balance {
	b := Balance{Identity: identity, Charged: w.charged, Held: w.held, Granted: w.granted}
	if !w.opened.IsZero() {
		b.Opened, b.ResetsAt = &w.opened, &w.ends
	}
	return b
}

// Kind is what a line of the ledger does.
type Kind string

// The kinds of Entry.
const (
	KindHold   Kind = "hold"   // Held is set aside for a Lease
	KindSettle Kind = "settle" // Held ends being set aside: Charged of it is paid, Returned comes back
	KindGrant  Kind = "grant"  // an operator gives Returned on top of the quota
	KindReset  Kind = "reset"  // an operator gives back Returned, all that was charged so far
)

// Entry is one line of the ledger.
type Entry struct {
	ID                      int64
	At                      time.Time
	Identity                string
	Window                  int64
	Lease                   string // empty for an operator's deed
	Kind                    Kind
	Space, Task             string // Task is the function's name, as far as it is known
	Held, Charged, Returned time.Duration
	Factor                  int // of a Lease's lines: seconds of quota for a second of it
	Reason                  string
	By                      string // the operator
	Via                     string // the Space that spent it through Space; both lines of a Lease say it
}

// Declared is what the function said that it would take.
func (e Entry) Declared() time.Duration { return e.Held / time.Duration(max(1, e.Factor)) }

// Used is how long the function had its Slot.
func (e Entry) Used() time.Duration { return e.Charged / time.Duration(max(1, e.Factor)) }

// Adjustment is an operator's deed.
type Adjustment struct {
	Identity string
	Amount   time.Duration // what to grant; Reset ignores it
	Reason   string
	By       string // who does it
}

// MostGrant is the most that one grant gives: as much as a tier's quota may be, far from where a duration overflows.
const MostGrant = 10_000 * time.Hour

// AdjustmentError refuses an operator's deed that makes no sense. Nothing was changed.
type AdjustmentError struct{ text string }

func (e *AdjustmentError) Error() string { return e.text }
