package metrics

import (
	"testing"

	"spacehost/internal/lease"
)

// TestGrantIsCountedOnce: a Lease whose warm worker has exited is granted again, because its client forks another worker.
func TestGrantIsCountedOnce(t *testing.T) {
	m := New()
	for _, c := range []lease.Change{
		{State: lease.Waiting}, {State: lease.Granted, Warm: true}, {State: lease.Active, Warm: true},
		{State: lease.Granted, Again: true}, {State: lease.Active}, {State: lease.Released},
	} {
		c.Space, c.Size, c.Tier = "demo", "large", "free"
		m.Changed(c)
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var grants, waits, ends float64
	for _, f := range families {
		for _, one := range f.GetMetric() {
			switch f.GetName() {
			case "spacehost_lease_grants_total":
				grants += one.GetCounter().GetValue()
			case "spacehost_lease_wait_seconds":
				waits += float64(one.GetHistogram().GetSampleCount())
			case "spacehost_leases_ended_total":
				ends += one.GetCounter().GetValue()
			}
		}
	}
	if grants != 1 || waits != 1 || ends != 1 {
		t.Errorf("%v grants, %v waits and %v ends of one lease", grants, waits, ends)
	}
}
