package lease

import (
	"context"
	"time"

	"spacehost/gpu"
)

// Waiting returns the number of waiting leases.
func (b *Broker) Waiting() (n int) {
	b.do(func(sc *scheduler) { n = len(sc.waiting) })
	return n
}

// List returns the open Leases, oldest first.
func (b *Broker) List() (all []Snapshot) {
	var sim *simulation
	if b.do(func(sc *scheduler) { all, sim = sc.snapshot(), sc.simulation() }) {
		addForecasts(all, sim.forecasts())
	}
	return all
}

// addForecasts adds the forecasts of the waiting leases.
func addForecasts(all []Snapshot, forecasts map[*Lease]Forecast) {
	for i, s := range all {
		if f, waits := forecasts[s.lease]; waits {
			all[i].Forecast = &f
		}
	}
}

// Slots returns every Slot and its phase.
func (b *Broker) Slots() (all []SlotView) {
	b.do(func(sc *scheduler) { all = sc.slotViews() })
	return all
}

// Past returns the Leases that ended last, newest first.
func (b *Broker) Past(ctx context.Context, limit int) ([]Past, error) {
	return b.store.past(ctx, limit)
}

// Snapshot is the operator's view of one open Lease.
type Snapshot struct {
	Lease           string         `json:"lease"` // its first digits; the whole is a credential
	State           State          `json:"state"`
	Space           string         `json:"space"`
	Identity        string         `json:"identity"`
	Tier            string         `json:"tier"`
	Event           string         `json:"event,omitempty"`
	Function        string         `json:"function,omitempty"`
	Via             string         `json:"via,omitempty"` // the Space that spends the payer's quota through Space
	Size            string         `json:"size"`
	DeclaredSeconds float64        `json:"declaredSeconds"`
	UsedSeconds     float64        `json:"usedSeconds"`
	*Forecast                      // while it waits
	Slot            *int           `json:"slot,omitempty"`
	Device          gpu.DeviceUUID `json:"device,omitempty"`
	Worker          int            `json:"worker,omitempty"`
	Admitted        time.Time      `json:"admitted"`
	Deadline        *time.Time     `json:"deadline,omitempty"`

	lease *Lease
}

func (sc *scheduler) snapshot() []Snapshot {
	all := make([]Snapshot, 0, len(sc.leases))
	for _, lease := range sc.openLeases(func(*Lease) bool { return true }) {
		all = append(all, sc.leaseView(lease))
	}
	return all
}

func (sc *scheduler) leaseView(o *Lease) Snapshot {
	s := Snapshot{
		Lease: o.Short(), State: o.State, Space: o.Space, Identity: o.Payer.Key(), Tier: o.Tier.Name, Event: o.Event, Function: o.Function, Via: o.Payer.Via,
		Size: o.Size, DeclaredSeconds: o.Declared.Seconds(), Worker: o.Worker.PID, Admitted: o.Admitted.UTC(), lease: o,
	}
	if o.Slot != nil {
		s.Slot, s.Device = &o.Slot.Index, o.Slot.Device.UUID
	}
	if !o.Active.IsZero() {
		deadline := o.deadline().UTC()
		s.Deadline, s.UsedSeconds = &deadline, sc.now().Sub(o.Active).Seconds()
	}
	return s
}

// SlotView is the operator's view of one Slot.
type SlotView struct {
	Slot   int            `json:"slot"`
	Device gpu.DeviceUUID `json:"device"`
	Phase  string         `json:"phase"`
	Reason string         `json:"reason,omitempty"`
	Space  string         `json:"space,omitempty"`
	Lease  string         `json:"lease,omitempty"`
	Worker int            `json:"worker,omitempty"` // while warm
}

func (sc *scheduler) slotViews() []SlotView {
	views := make([]SlotView, 0, len(sc.slots))
	for _, s := range sc.slots {
		v := SlotView{Slot: s.Index, Device: s.Device.UUID, Phase: string(s.phase), Reason: s.reason}
		if s.holder != nil && s.phase == held {
			v.Space, v.Lease = s.holder.Space, s.holder.Short()
		}
		if s.phase == warm {
			v.Space, v.Worker = s.idle.lease.Space, s.idle.lease.Worker.PID
		}
		views = append(views, v)
	}
	return views
}
