package lease

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// Schedule takes the hold and queues the Lease. Errors: a quota.Refused or a database error; then nothing is held.
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
	if !b.do(func(sc *scheduler) { sc.onSchedule(l) }) {
		l.State, l.Reason, l.Ended = Withdrawn, "host stopped", b.now()
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
	b.do(func(sc *scheduler) { warm = sc.tryWarmStart(l) })
	if !warm {
		return nil, nil
	}
	err := <-l.warmStarted
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
	t.broker.do(func(*scheduler) { reason = t.lease.limit.reason() })
	return reason
}

// Leave abandons the Lease: a waiting one is withdrawn, a grant that was not delivered is taken back. After a
// broken stream the client repeats its request without a size (spaces/zero/client.py, schedule).
func (t *Ticket) Leave() {
	t.broker.rememberBroken(t.lease.Request)
	t.broker.do(func(sc *scheduler) { sc.onHangUp(t.lease) })
}

// Allow starts the clock of a granted Lease. Its worker is the process of the Space that calls itself claimed. Errors:
// ErrUnknown, *NotOwnedError, a database error, or that of the Device's nodes. Then the clock has not started, and the worker ends with the Lease.
func (b *Broker) Allow(ctx context.Context, space, id string, claimed int) error {
	pid, start, ok := b.config.Processes.FromInside(space, claimed)
	if !ok {
		return &NotOwnedError{claimed}
	}
	worker := Worker{PID: pid, Start: start}
	var l *Lease
	var since time.Time
	err := ErrUnknown
	b.do(func(sc *scheduler) { l, since, err = sc.onClaim(space, id, worker) })
	if err != nil {
		return err
	}
	b.config.Processes.Confine(space, pid, start)
	if err := b.showNodes(ctx, space); err != nil {
		return err
	}
	if err := b.store.activate(ctx, l, worker, since, b.now()); err != nil {
		return err
	}
	b.occupy(l, pid)
	allowed := false
	b.do(func(sc *scheduler) {
		// The clock starts here, not before the commit: the payer is not charged for the database's time.
		allowed = sc.onAllow(l, b.now())
	})
	if !allowed {
		return ErrUnknown
	}
	return nil
}

// occupy registers the worker on a simulated machine; a real driver sees it by itself.
func (b *Broker) occupy(l *Lease, pid int) {
	simulator, ok := b.config.Pool.Inventory().(gpu.Simulator)
	if !ok {
		return
	}
	if err := simulator.Occupy(l.Slot.Device.UUID, pid); err != nil {
		b.log.Warn("occupy simulated device", zap.String("lease", l.Short()), zap.Error(err)) // the scheduler handles the rest
	}
}

// Release ends a Lease on request of its Space and returns once it is settled. ErrUnknown: it has ended already.
func (b *Broker) Release(ctx context.Context, space, id string, failed bool) error {
	var l *Lease
	err := ErrUnknown
	b.do(func(sc *scheduler) { l, err = sc.onRelease(space, id, failed) })
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
