package quota

import (
	"fmt"
	"time"
)

// Settlement ends a hold.
type Settlement struct {
	Lease   string
	Charged time.Duration // between 0 and what is held; the rest is returned
	Reason  string
	Now     time.Time
}

// SettledError says that the Lease was settled before. Nothing was changed.
type SettledError struct{ Lease string }

func (e *SettledError) Error() string {
	return fmt.Sprintf("lease %s is settled already", e.Lease)
}

// UnknownHoldError says that there is no hold for the Lease.
type UnknownHoldError struct{ Lease string }

func (e *UnknownHoldError) Error() string {
	return fmt.Sprintf("lease %s has no hold", e.Lease)
}

// ChargeError refuses a charge that is not between 0 and what is held. Nothing was changed.
type ChargeError struct {
	Lease         string
	Held, Charged time.Duration
}

func (e *ChargeError) Error() string {
	return fmt.Sprintf("lease %s cannot be charged %v: it holds %v", e.Lease, e.Charged, e.Held)
}

// charge rounds up to the millisecond, once.
func (s Settlement) charge(held time.Duration) (time.Duration, error) {
	charged := ceil(s.Charged, time.Millisecond)
	if s.Charged < 0 || charged > held {
		return 0, &ChargeError{Lease: s.Lease, Held: held, Charged: s.Charged}
	}
	return charged, nil
}
