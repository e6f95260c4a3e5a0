package quota

import "time"

// Balance is the state of an identity's account in its current Window. Charged, Held and Left are of the quota, without the
// credits.
type Balance struct {
	Identity  string
	Unlimited bool
	Base      time.Duration // the tier's quota plus grants in this Window
	Charged   time.Duration
	Held      time.Duration
	Granted   time.Duration
	Left      time.Duration // never negative; meaningless if Unlimited
	Opened    *time.Time    // nil before the first use in this Window
	ResetsAt  *time.Time    // nil before the first use in this Window

	Credits       time.Duration // prepaid seconds that no call holds
	CreditHeld    time.Duration // prepaid seconds that open calls hold
	CreditCharged time.Duration // prepaid seconds that were charged in this Window
	Runs          *Runs         // nil if the tier has no limit of runs
}

// For returns the balance with Base, Left and Unlimited of a tier, which the ledger does not know.
func (b Balance) For(t Tier) Balance {
	b.Unlimited = t.Unlimited
	b.Base = t.Quota + b.Granted
	b.Left = max(0, b.Base-b.Charged-b.Held)
	return b
}

func (w window) balance(identity string, c credits) Balance {
	b := Balance{
		Identity: identity, Charged: w.charged, Held: w.held, Granted: w.granted,
		Credits: c.left, CreditHeld: c.held, CreditCharged: w.credit,
	}
	if !w.opened.IsZero() {
		b.Opened, b.ResetsAt = &w.opened, &w.ends
	}
	return b
}

// Kind is the effect of an Entry.
type Kind string

// The kinds of Entry.
const (
	KindHold   Kind = "hold"   // Held is reserved for a Lease
	KindSettle Kind = "settle" // the reservation Held ends: Charged is paid, Returned is refunded
	KindGrant  Kind = "grant"  // an operator adds Returned to the quota, and Runs to the limit of runs
	KindReset  Kind = "reset"  // an operator refunds Returned, which is all that was charged so far, and returns Runs
	KindCredit Kind = "credit" // an operator adds Returned to the credits
)

// Kinds are all of them.
var Kinds = []Kind{KindHold, KindSettle, KindGrant, KindReset, KindCredit}

// Entry is one row of the ledger.
type Entry struct {
	ID                      int64
	At                      time.Time
	Identity                string
	Window                  int64
	Lease                   string // empty for an operator's adjustment
	Kind                    Kind
	Space, Task             string // Task is the function's name, if known
	Held, Charged, Returned time.Duration
	Factor                  int // for a Lease: seconds of quota per second
	Reason                  string
	By                      string        // the operator
	Via                     string        // the Space that spent it through Space; set in both entries of a Lease
	Runs                    int           // of a settlement: 1 if the Lease counts as a run
	CreditHeld              time.Duration // the part of Held that comes from the credits
	CreditCharged           time.Duration // the part of Charged that the credits pay
	unpaid                  time.Duration // of a settlement without a charge: for how long the function had its Slot
}

// Declared returns the duration that the function declared.
func (e Entry) Declared() time.Duration { return e.Held / time.Duration(max(1, e.Factor)) }

// Used returns the time for which the function had its Slot, also of a Lease that the host ended, which is not charged.
func (e Entry) Used() time.Duration {
	if e.Charged > 0 {
		return e.Charged / time.Duration(max(1, e.Factor))
	}
	return e.unpaid
}

// UnpaidMillis is the SQL of the use of a Lease that is not charged, in milliseconds, over the table leases.
const UnpaidMillis = `coalesce(max(0, min(leases.ended_at, leases.deadline_at) - leases.active_at), 0)`
