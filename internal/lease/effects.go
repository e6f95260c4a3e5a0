package lease

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/quota"
)

// effects are the actions that the scheduler requests. No method blocks; results come back as calls of the
// scheduler.
type effects interface {
	// check checks whether the allocation is clear, then calls onChecked.
	check(a allocation)
	// decide answers a waiting Lease, once.
	decide(l *Lease, d decision)
	// resume checks that only the idle worker uses the allocation; if not, it calls onUnfit. Else it commits the
	// Lease as active with that worker and calls onResumed.
	resume(l *Lease)
	// warmStart does the same for a Lease without a hold, which it takes in the same transaction. It calls
	// onWarmStarted.
	warmStart(l *Lease)
	// freeze stops a worker that has become idle, where Processes can. resume and warmStart let it continue before
	// their Lease is decided.
	freeze(w *idleWorker)
	// watch calls onExit when the worker has exited.
	watch(w Worker)
	// dismiss ends a worker that another one has replaced.
	dismiss(w Worker)
	// settle writes the end of a Lease to the database, then closes l.settled.
	settle(l *Lease)
	// reclaim ends the worker of an ended Lease, and waits until the Lease is settled and its allocation is clear.
	// It calls onReclaimed.
	reclaim(a allocation, l *Lease, grace time.Duration)
	// expired notifies the visitor that the deadline was reached.
	expired(l *Lease)
	// changed publishes a new State of a Lease, before anything else happens because of it.
	changed(l *Lease)
}

func (b *Broker) check(a allocation) {
	beside := b.scheduler.neighbours(a)
	b.effectsRunning.Go(func() {
		err := b.checkClear(a, Worker{}, beside)
		b.do(func(sc *scheduler) { sc.onChecked(a, err) })
	})
}

// checkClear checks that only self, if any, uses the allocation, and that only the given workers use the rest of
// its Device. If a neighbour started during the check, it checks again: that worker is no foreign process.
func (b *Broker) checkClear(a allocation, self Worker, beside []Worker) error {
	for {
		own := beside
		if self.PID != 0 {
			own = append(slices.Clone(beside), self)
		}
		err := b.config.Pool.Clear(b.work, a[0].Device.UUID, gpu.Neighbours{Slots: len(own), Own: func(pid int) bool {
			return slices.ContainsFunc(own, func(w Worker) bool { return b.config.Processes.Within(pid, w.PID, w.Start) })
		}})
		if err == nil {
			return nil
		}
		current := b.currentNeighbours(a)
		if slices.Equal(beside, current) {
			return err
		}
		beside = current
	}
}

// checkWarm lets the idle worker of a Space continue, and checks that its allocation is clear of others.
func (b *Broker) checkWarm(space string, thaw func() error, a allocation, worker Worker, beside []Worker) error {
	if err := b.showNodes(b.work, space); err != nil {
		return err
	}
	if err := thaw(); err != nil {
		return err
	}
	return b.checkClear(a, worker, beside)
}

// currentNeighbours queries the scheduler; the scheduler's own goroutine calls neighbours directly.
func (b *Broker) currentNeighbours(a allocation) (all []Worker) {
	b.do(func(sc *scheduler) { all = sc.neighbours(a) })
	return all
}

func (b *Broker) decide(l *Lease, d decision) { l.decided <- d }

// warmStart sends one result to l.warmStarted: nil, errUnfit, or the reason for which the commit failed. The
// Device is checked concurrently with the commit. A commit on a Device that is not clear is taken back before the
// caller has an answer. An open window cannot be closed again. If the Lease would open its payer's window, the
// check comes first.
func (b *Broker) warmStart(l *Lease) {
	worker, a, at := l.Worker, l.allocation, b.now()
	beside, thaw := b.scheduler.neighbours(a), b.thaw(l.pendingWorker)
	b.effectsRunning.Go(func() {
		checked := make(chan error, 1)
		go func() { checked <- b.checkWarm(l.Space, thaw, a, worker, beside) }()
		err := b.store.warmStart(b.work, l, worker, at, b.config.QueueTimeout, false)
		busy := <-checked
		switch {
		case busy != nil:
			b.log.Warn("warm worker not reusable", zap.Int("slot", a[0].Index), zap.Error(busy))
			if err == nil {
				b.withdrawWarmStart(l)
			}
			err = errUnfit
		case errors.Is(err, errWindowClosed):
			err = b.store.warmStart(b.work, l, worker, at, b.config.QueueTimeout, true)
		}
		if !b.do(func(sc *scheduler) { sc.onWarmStarted(l, b.now(), err) }) && err == nil {
			l.State, l.Reason, l.Ended, l.undelivered = Withdrawn, "host stopped", b.now(), true
			err = errors.Join(ErrGone, b.store.settle(b.work, l))
		}
		l.warmStarted <- err
	})
}

// withdrawWarmStart returns the hold of a warm start that its client has not been told about. If the database
// refuses now, it is retried in the background.
func (b *Broker) withdrawWarmStart(l *Lease) {
	over := &Lease{Request: l.Request, ID: l.ID, State: Withdrawn, Reason: "warm worker cannot go on", Ended: b.now(), settled: make(chan struct{})}
	if err := b.store.settle(b.work, over); err != nil {
		b.log.Error("settle lease", zap.Object("lease", over), zap.Error(err))
		b.settle(over) // the effect that called this is still running, so Run still waits for this one
	}
}

func (b *Broker) resume(l *Lease) {
	worker, a := l.Worker, l.allocation
	beside, thaw := b.scheduler.neighbours(a), b.thaw(l.pendingWorker)
	b.effectsRunning.Go(func() {
		if err := b.checkWarm(l.Space, thaw, a, worker, beside); err != nil {
			b.log.Warn("warm worker not reusable", zap.Int("slot", a[0].Index), zap.Error(err))
			b.do(func(sc *scheduler) { sc.onUnfit(l) })
			return
		}
		at := b.now()
		err := b.store.activate(b.work, l, worker, at, at)
		if err != nil {
			b.log.Error("resume lease", zap.Object("lease", l), zap.Error(err))
		}
		b.do(func(sc *scheduler) { sc.onResumed(l, b.now(), err) })
	})
}

func (b *Broker) watch(w Worker) {
	b.watching.Go(func() {
		b.config.Processes.Wait(b.work, w.PID, w.Start)
		b.do(func(sc *scheduler) { sc.onExit(w) })
	})
}

func (b *Broker) dismiss(w Worker) {
	b.effectsRunning.Go(func() {
		if !b.config.Processes.End(w.PID, w.Start, 0) {
			b.log.Warn("replaced worker could not be ended", zap.Int("worker", w.PID))
		}
	})
}

func (b *Broker) expired(l *Lease) {
	end := End{Space: l.Space, Event: l.Event, Declared: l.Declared, Used: b.now().Sub(l.Active)}
	if b.config.Expired != nil {
		b.effectsRunning.Go(func() { b.config.Expired(end) })
	}
}

// settleRetryDelay is the pause after a settlement that the database refused. The seconds stay held meanwhile.
const settleRetryDelay = time.Second

// settle retries for as long as the host runs: a disk may be full for an hour, and the payer gets the rest back
// afterwards.
func (b *Broker) settle(l *Lease) {
	b.effectsRunning.Go(func() {
		defer close(l.settled)
		if err := b.showNodes(b.work, l.Space); err != nil {
			b.log.Warn("hide nodes of device", zap.Object("lease", l), zap.Error(err))
		}
		for {
			err := b.store.settle(b.work, l)
			if err == nil {
				return
			}
			b.log.Error("settle lease", zap.Object("lease", l), zap.Error(err))
			if isFinal(err) || !pause(b.work.Done(), settleRetryDelay) {
				return
			}
		}
	})
}

// isFinal distinguishes a refusal by the ledger, which is permanent, from a database error, which is temporary.
func isFinal(err error) bool {
	var unknown *quota.UnknownHoldError
	var charge *quota.ChargeError
	return errors.As(err, &unknown) || errors.As(err, &charge)
}

// pause returns false if end comes first.
func pause(end <-chan struct{}, d time.Duration) bool {
	select {
	case <-end:
		return false
	case <-time.After(d):
		return true
	}
}

// reclaimTimeout bounds the wait for memory to be freed after the worker has exited.
const reclaimTimeout = 10 * time.Second

func (b *Broker) reclaim(a allocation, l *Lease, grace time.Duration) {
	worker := l.Worker
	b.effectsRunning.Go(func() {
		err := b.endAndClear(a, worker, grace)
		if err != nil {
			b.log.Warn("slot not reclaimed", zap.Int("slot", a[0].Index), zap.Error(err))
		}
		<-l.settled
		if err == nil {
			b.log.Info("slot returned", zap.Object("lease", l), zap.Int("worker", worker.PID))
		}
		b.do(func(sc *scheduler) { sc.onReclaimed(a, err) })
	})
}

// endAndClear ends the worker and waits until the Device is clear. Once the host stops, it does not wait for the
// Device.
func (b *Broker) endAndClear(a allocation, worker Worker, grace time.Duration) error {
	if worker.PID != 0 && !b.config.Processes.End(worker.PID, worker.Start, grace) {
		return errNotReclaimed
	}
	for deadline, wait := time.Now().Add(reclaimTimeout), 5*time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := b.checkClear(a, Worker{}, b.currentNeighbours(a))
		if err == nil || time.Now().After(deadline) || !pause(b.done, wait) {
			return err
		}
	}
}
