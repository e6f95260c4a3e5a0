package lease

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/space"
)

// Schedule takes the hold and queues the Lease on the machine of the request. Errors: a quota.Refused, a database error, or
// *UnknownMachineError; then nothing is held.
func (b *Broker) Schedule(ctx context.Context, r Request) (*Ticket, error) {
	r.Size = b.sizeOf(r)
	l, err := b.tryWarmStart(r)
	if err != nil {
		return nil, err
	} else if l != nil {
		return &Ticket{broker: b, lease: l}, nil
	}
	l = newLease(r, b.now())
	if err := b.store.admit(ctx, l, b.config.QueueTimeout); err != nil {
		return nil, err
	}
	joined := false
	b.do(func(all *schedulers) {
		if sc := all.of(l.Machine); sc != nil {
			joined = true
			sc.onSchedule(l)
		}
	})
	if !joined { // the host stops, or the machine has left
		l.State, l.Reason, l.Ended = Withdrawn, space.EndedByHost, b.now()
		return nil, errors.Join(ErrGone, b.store.settle(context.WithoutCancel(ctx), l))
	}
	return &Ticket{broker: b, lease: l}, nil
}

// Ask returns what Schedule would return for that request now: nil or a refusal. Nothing is held or queued.
func (b *Broker) Ask(ctx context.Context, r Request) error {
	r.Size = b.sizeOf(r)
	return b.store.ask(ctx, newLease(r, b.now()), b.config.QueueTimeout)
}

// tryWarmStart returns the Lease if it is active on an idle worker already. It returns nil if the Lease has to be
// admitted and wait.
func (b *Broker) tryWarmStart(r Request) (*Lease, error) {
	l, warm := newLease(r, b.now()), false
	err := error(&UnknownMachineError{Name: r.Machine})
	if !b.do(func(all *schedulers) {
		if sc := all.of(r.Machine); sc != nil {
			warm, err = sc.tryWarmStart(l), nil
		}
	}) {
		err = nil // the host stops: the admission finds it out
	}
	if !warm {
		return nil, err
	}
	err = <-l.warmStarted
	if errors.Is(err, errUnfit) {
		return nil, nil
	}
	return l, err
}

// Ticket identifies a scheduled Lease to its caller.
type Ticket struct {
	broker *Broker
	lease  *Lease
}

// Wait blocks until the Lease is granted, has ended, or ctx ends. After ErrTimedOut, ErrLeft and ErrGone the Lease
// has ended, and nothing is charged. After ctx's error the Lease still waits: call Wait again, or Leave.
func (t *Ticket) Wait(ctx context.Context) (Grant, error) {
	select {
	case d := <-t.lease.decided:
		if d.err != nil {
			return Grant{}, d.err
		}
		return *d.grant, nil
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
}

// Forecast returns the Lease's forecast, at most a second old. It returns false if the Lease no longer waits.
func (t *Ticket) Forecast() (Forecast, bool) { return t.broker.forecast(t.lease) }

// OverRuns reports whether the payer's runs were used up at admission, and the limit is advisory.
func (t *Ticket) OverRuns() bool { return t.lease.overRuns }

// Reason returns why the Lease waits now, or waited last.
func (t *Ticket) Reason() (reason Reason) {
	reason = Node
	t.broker.do(func(*schedulers) { reason = t.lease.limit.reason() })
	return reason
}

// Leave abandons the Lease: a waiting one is withdrawn, a grant that was not delivered is taken back. After a
// broken stream the client repeats its request without a size (spaces/zero/client.py, schedule).
func (t *Ticket) Leave() {
	t.broker.rememberBroken(t.lease.Request)
	t.broker.do(func(all *schedulers) {
		if sc := all.ofLease(t.lease.ID); sc != nil {
			sc.onHangUp(t.lease)
		}
	})
}

// Allow starts the clock of a granted Lease. Its worker is the process that calls itself claimed, of the start that requested
// the Lease. Errors: ErrUnknown, *NotOwnedError, ErrUnreachable, a database error, or that of the Device's nodes. Then the clock
// has not started, and the worker ends with the Lease.
func (b *Broker) Allow(ctx context.Context, space, id string, claimed int) error {
	at, machine, instance := b.findLease(space, id)
	if at == nil {
		return ErrUnknown
	}
	worker, err := machine.Claim(ctx, instance, claimed)
	if err != nil {
		return err
	}
	var l *Lease
	var since time.Time
	err = ErrUnknown
	at.do(func(sc *scheduler) {
		if l, since, err = sc.onClaim(space, id, worker); err == nil {
			l.armedAhead = b.now()
		}
	})
	if err != nil {
		return err
	}
	machine.Confine(instance, worker)
	if err := at.showNodes(ctx, machine, space); err != nil {
		return err
	}
	// Disarm must not overtake a call that the client has given up.
	armed := machine.BeginArm(context.WithoutCancel(ctx), id, worker, since.Add(l.Declared).Sub(b.now()))
	err = b.store.activate(ctx, l, worker, since, b.now())
	if err = errors.Join(err, armed()); err != nil {
		at.doThenDisarm(machine, l, func(*scheduler) {})
		return err
	}
	if err := machine.Occupy(l.Slot.Device.UUID, worker); err != nil {
		b.log.Warn("occupy simulated device", zap.String("lease", l.Short()), zap.Error(err)) // the scheduler handles the rest
	}
	allowed := false
	at.doThenDisarm(machine, l, func(sc *scheduler) {
		// The clock starts here, not before the commit: the payer is not charged for the database's time.
		allowed = sc.onAllow(l, b.now())
	})
	if !allowed {
		return ErrUnknown
	}
	return nil
}

// findLease returns the machine of a Space's open Lease, and the start of the Space that has requested it; nil if there is no such
// Lease.
func (b *Broker) findLease(space, id string) (at *machineEffects, machine Machine, instance string) {
	b.do(func(all *schedulers) {
		if sc := all.ofLease(id); sc != nil && sc.leases[id].Space == space {
			at, instance = effectsOf(sc), sc.leases[id].Instance
			machine = at.machine
		}
	})
	return at, machine, instance
}

// Release ends a Lease on request of its Space and returns once it is settled. ErrUnknown: it has ended already.
func (b *Broker) Release(ctx context.Context, space, id string, failed bool) error {
	var l *Lease
	err := ErrUnknown
	b.do(func(all *schedulers) {
		if sc := all.ofLease(id); sc != nil {
			l, err = sc.onRelease(space, id, failed)
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-l.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retrySizeTime is how long a retry after a broken stream inherits the size that the client leaves out.
const retrySizeTime = 10 * time.Second

type brokenStreamRetry struct {
	size string
	at   time.Time
}

func retryKey(r Request) string { return r.Space + "\x00" + r.Task + "\x00" + r.Payer.Key() }

func (b *Broker) rememberBroken(r Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, old := range b.brokenStreams {
		if time.Since(old.at) > retrySizeTime {
			delete(b.brokenStreams, key)
		}
	}
	b.brokenStreams[retryKey(r)] = brokenStreamRetry{r.Size, time.Now()}
}

// sizeOf keeps the remembered entry: after a network failure several streams of one payer retry.
func (b *Broker) sizeOf(r Request) string {
	if r.Size != "" {
		return r.Size
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.brokenStreams[retryKey(r)]; ok && time.Since(old.at) <= retrySizeTime {
		return old.size
	}
	return "large"
}
