package quota

import (
	"fmt"
	"time"
)

// Settlement ends a hold.
type Settlement struct {
	Lease   string
	Charged time.Duration // from 0 to the held time; the rest is refunded
	Reason  string
	Now     time.Time
	// Ran is when the Lease was granted a GPU. If it became active, its run counts from then on instead. Zero: it was granted
	// none, or its client never learned of it, and it counts as no run.
	Ran time.Time
}

// runs returns the number of runs that the Lease counts as.
func (s Settlement) runs() int {
	if s.Ran.IsZero() {
		return 0
	}
	return 1
}

// SettledError refuses to settle a Lease twice. Nothing was changed.
type SettledError struct{ Lease string }

func (e *SettledError) Error() string {
	return fmt.Sprintf("lease %s is already settled", e.Lease)
}

// UnknownHoldError is returned for a Lease without a hold.
type UnknownHoldError struct{ Lease string }

func (e *UnknownHoldError) Error() string {
	return fmt.Sprintf("lease %s has no hold", e.Lease)
}

// ChargeError refuses a charge that is negative or exceeds the hold. Nothing was changed.
type ChargeError struct {
	Lease         string
	Held, Charged time.Duration
}

func (e *ChargeError) Error() string {
	return fmt.Sprintf("lease %s cannot be charged %v: it holds %v", e.Lease, e.Charged, e.Held)
}

// charge returns the charge, rounded up to the millisecond.
func (s Settlement) charge(held time.Duration) (time.Duration, error) {
	charged := ceil(s.Charged, time.Millisecond)
	if s.Charged < 0 || charged > held {
		return 0, &ChargeError{Lease: s.Lease, Held: held, Charged: s.Charged}
	}
	return charged, nil
}
