package lease

import (
	"context"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Change is one transition of a Lease; the package comment lists all of them.
type Change struct {
	At              time.Time      `json:"at"`
	Lease           string         `json:"lease"` // its first digits; the whole is a credential
	State           State          `json:"state"`
	Space           string         `json:"space"`
	Identity        string         `json:"identity"`
	Via             string         `json:"via,omitempty"`
	Tier            string         `json:"tier"`
	Event           string         `json:"event,omitempty"`
	Size            string         `json:"size"`
	DeclaredSeconds float64        `json:"declaredSeconds"`
	Machine         string         `json:"node,omitempty"` // absent: the host's own machine
	Slot            *int           `json:"slot,omitempty"`
	Device          gpu.DeviceUUID `json:"device,omitempty"`
	Worker          int            `json:"worker,omitempty"`
	Warm            bool           `json:"warm,omitempty"`  // its worker was idle before the grant
	Again           bool           `json:"again,omitempty"` // granted once more: its warm worker had exited, or the Slot was not clear
	WaitedSeconds   float64        `json:"waitedSeconds"`   // from admission to the grant, or to now
	OccupiedSeconds float64        `json:"occupiedSeconds"` // from the grant to now: how long the Slot was taken
	ChargedSeconds  float64        `json:"chargedSeconds"`  // once it has ended
	Reason          string         `json:"reason,omitempty"`
}

// IsFinal reports whether this is the last Change of that Lease.
func (c Change) IsFinal() bool {
	return c.State != Waiting && c.State != Granted && c.State != Active && c.State != Unreachable
}

// Killed reports whether the host ended the worker because the Lease was over, without a request of the worker.
func (c Change) Killed() bool {
	return c.Worker != 0 && (c.State == Expired || c.State == Revoked || c.State == Unclaimed)
}

// change describes the Lease as it is now.
func (l *Lease) change(now time.Time) Change {
	c := Change{
		At: now.UTC(), Lease: l.Short(), State: l.State, Space: l.Space, Identity: l.Payer.Key(), Via: l.Payer.Via, Tier: l.Tier.Name,
		Event: l.Event, Size: l.Size, Machine: l.Machine, DeclaredSeconds: l.Declared.Seconds(), Worker: l.Worker.PID, Warm: l.warmWorker,
		Again: l.State == Granted && l.regranted, ChargedSeconds: l.Charged.Seconds(), Reason: l.Reason, WaitedSeconds: now.Sub(l.Admitted).Seconds(),
	}
	if l.Slot != nil {
		c.Slot, c.Device = &l.Slot.Index, l.Slot.Device.UUID
		c.WaitedSeconds, c.OccupiedSeconds = l.Granted.Sub(l.Admitted).Seconds(), now.Sub(l.Granted).Seconds()
	}
	return c
}

// watchBuffer is how many Changes a reader may lag behind before its channel is closed.
const watchBuffer = 4096

// Watch sends one Change for each open Lease as it is now, then every later Change. The channel is closed once ctx
// ends, once the Broker stops, or when its reader lags more than 4096 Changes behind: the scheduler never waits.
func (b *Broker) Watch(ctx context.Context) <-chan Change {
	changes := make(chan Change, watchBuffer)
	known := b.do(func(all *schedulers) {
		open := all.openLeases(func(*Lease) bool { return true })
		for _, lease := range open[:min(watchBuffer, len(open))] {
			changes <- lease.change(b.now())
		}
		b.watchers[changes] = true
	})
	if !known {
		close(changes)
		return changes
	}
	context.AfterFunc(ctx, func() { b.do(func(*schedulers) { b.removeWatcher(changes) }) })
	return changes
}

// removeWatcher may be called twice, on the scheduler's goroutine.
func (b *Broker) removeWatcher(changes chan Change) {
	if b.watchers[changes] {
		delete(b.watchers, changes)
		close(changes)
	}
}

// changed publishes a new State of a Lease. The log and the watchers can replay the states.
func (b *Broker) changed(l *Lease) {
	c := l.change(b.now())
	fields := []zap.Field{zap.Object("lease", l)}
	switch {
	case l.State == Waiting:
		fields = append(fields, zap.Duration("declared", l.Declared))
	case l.State == Granted:
		fields = append(fields, zap.Object("device", l.Slot.Device))
	case l.State == Active, l.State == Unreachable:
		fields = append(fields, zap.Int("worker", l.Worker.PID))
	case c.IsFinal():
		fields = append(fields, zap.String("reason", l.Reason), zap.Duration("charged", l.Charged))
	}
	b.log.Info("lease "+verb(l.State), fields...)
	if b.config.Changed != nil {
		b.config.Changed(c)
	}
	for watcher := range b.watchers {
		select {
		case watcher <- c:
		default:
			b.removeWatcher(watcher)
		}
	}
}

// verb is the log's verb for that State.
func verb(s State) string {
	switch s {
	case Waiting:
		return "waits"
	case Granted, Active, Unreachable:
		return string(s)
	}
	return "ended"
}
