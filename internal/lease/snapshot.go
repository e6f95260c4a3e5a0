package lease

import (
	"context"
	"slices"
	"time"

	"spacehost/gpu"
)

// Waiting returns the number of waiting leases.
func (b *Broker) Waiting() (n int) {
	b.do(func(all *schedulers) {
		for _, sc := range all.list {
			n += len(sc.waiting)
		}
	})
	return n
}

// List returns the open Leases, oldest first. It is never nil while Run runs: clients read it as a JSON array.
func (b *Broker) List() (all []Snapshot) {
	var sims []*simulation
	var several bool
	b.do(func(machines *schedulers) {
		all = []Snapshot{}
		for _, sc := range machines.list {
			all = append(all, sc.snapshot()...)
			if len(sc.waiting) > 0 {
				sims = append(sims, sc.simulation())
			}
		}
		several = len(machines.list) > 1
	})
	for _, sim := range sims {
		addForecasts(all, sim.forecasts())
	}
	if several {
		slices.SortFunc(all, func(a, b Snapshot) int { return a.lease.compareAdmitted(b.lease) })
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
	b.do(func(machines *schedulers) {
		all = []SlotView{}
		for _, sc := range machines.list {
			all = append(all, sc.slotViews()...)
		}
	})
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
	Machine         string         `json:"node,omitempty"` // absent: the host's own machine
	Slot            *int           `json:"slot,omitempty"`
	Device          gpu.DeviceUUID `json:"device,omitempty"`
	Worker          int            `json:"worker,omitempty"`
	Admitted        time.Time      `json:"admitted"`
	*Priority                      // while it waits
	Granted         *time.Time     `json:"granted,omitempty"` // since when it has the Slot
	Active          *time.Time     `json:"active,omitempty"`  // since when its clock runs
	Deadline        *time.Time     `json:"deadline,omitempty"`

	lease *Lease
}

// Priority is what orders a waiting Lease: the Lease with the earliest EffectiveTime goes first (priority.go).
type Priority struct {
	Score            float64   `json:"score"` // of the remaining quota and the shortness of the call, from 0 to 1
	EffectiveTime    time.Time `json:"effectiveTime"`
	HeadStartSeconds float64   `json:"headStartSeconds"` // for the tier and the score; EffectiveTime is the admission minus these
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
		Lease: o.Short(), State: o.State, Machine: o.Machine, Space: o.Space, Identity: o.Payer.Key(), Tier: o.Tier.Name, Event: o.Event, Function: o.Function, Via: o.Payer.Via,
		Size: o.Size, DeclaredSeconds: o.Declared.Seconds(), Worker: o.Worker.PID, Admitted: o.Admitted.UTC(), lease: o,
	}
	if o.Slot != nil {
		s.Slot, s.Device = &o.Slot.Index, o.Slot.Device.UUID
	}
	if o.State == Waiting {
		s.Priority = &Priority{Score: score(o), EffectiveTime: o.effectiveTime.UTC(), HeadStartSeconds: o.Admitted.Sub(o.effectiveTime).Seconds()}
	} else if !o.Granted.IsZero() {
		granted := o.Granted.UTC()
		s.Granted = &granted
	}
	if !o.Active.IsZero() {
		deadline, active := o.deadline().UTC(), o.Active.UTC()
		s.Active = &active
		s.Deadline, s.UsedSeconds = &deadline, sc.now().Sub(o.Active).Seconds()
	}
	return s
}

// PhaseBusy is the phase of a Slot that cannot be lent: a foreign process uses its Device, or it cannot be read.
const PhaseBusy = string(busy)

// SlotView is the operator's view of one Slot.
type SlotView struct {
	Machine string         `json:"node,omitempty"` // absent: the host's own machine
	Slot    int            `json:"slot"`           // its number on the machine
	Device  gpu.DeviceUUID `json:"device"`
	Phase   string         `json:"phase"`
	Reason  string         `json:"reason,omitempty"`
	Space   string         `json:"space,omitempty"`
	Lease   string         `json:"lease,omitempty"`
	Worker  int            `json:"worker,omitempty"` // while warm
}

func (sc *scheduler) slotViews() []SlotView {
	views := make([]SlotView, 0, len(sc.slots))
	for _, s := range sc.slots {
		v := SlotView{Machine: sc.machine, Slot: s.Index, Device: s.Device.UUID, Phase: string(s.phase), Reason: s.reason}
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
