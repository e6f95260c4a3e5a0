package lease

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/space"
	"spacehost/internal/stack"
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
	// reportedLate publishes the end of a Lease that was settled before its machine could report it.
	reportedLate(e EndedLease)
	// left is the last effect of a machine that leaves.
	left()
	// drainBegan and drainEnded publish the beginning and the end of the window of a drain.
	drainBegan(uuid gpu.DeviceUUID, d Drain)
	drainEnded(uuid gpu.DeviceUUID, d Drain)
}

// machineEffects implements the effects of the scheduler of one machine.
type machineEffects struct {
	*Broker
	scheduler *scheduler
	machine   Machine // only the Broker's goroutine uses it; effects take it along
	shown     shownNodes
	gone      chan struct{} // closed once the machine has left
	stopWatch func()        // ends the watch of its Devices
}

// effectsOf returns the effects of a scheduler that the Broker has added.
func effectsOf(sc *scheduler) *machineEffects { return sc.effects.(*machineEffects) }

// do runs call on the Broker's goroutine and waits for it. It returns false if the Broker has stopped.
func (m *machineEffects) do(call func(*scheduler)) bool {
	return m.Broker.do(func(*schedulers) {
		m.scheduler.touched = true
		call(m.scheduler)
	})
}

func (m *machineEffects) check(a allocation) {
	machine, beside := m.machine, m.scheduler.neighbours(a)
	m.effectsRunning.Go(func() {
		err := m.checkClear(machine, a, beside)
		m.do(func(sc *scheduler) { sc.onChecked(a, err) })
	})
}

// checkClear checks that nothing uses the allocation, and that only the given workers use the rest of its Device.
func (m *machineEffects) checkClear(machine Machine, a allocation, beside []Worker) error {
	return m.recheck(a, beside, func(beside []Worker) error {
		return machine.Clear(m.work, a[0].Device.UUID, Worker{}, beside)
	})
}

// recheck checks an allocation, and again if a neighbour on its Device has started meanwhile: that worker is no foreign process. beside are
// the neighbours now.
func (m *machineEffects) recheck(a allocation, beside []Worker, check func(beside []Worker) error) error {
	for {
		err := check(beside)
		if err == nil {
			return nil
		}
		current := m.currentNeighbours(a)
		if slices.Equal(beside, current) {
			return err
		}
		beside = current
	}
}

// currentNeighbours queries the scheduler; the scheduler's own goroutine calls neighbours directly.
func (m *machineEffects) currentNeighbours(a allocation) (all []Worker) {
	m.do(func(sc *scheduler) { all = sc.neighbours(a) })
	return all
}

func (m *machineEffects) decide(l *Lease, d decision) { l.decided <- d }

// warmStart sends one result to l.warmStarted: nil, errUnfit, or the reason for which the commit failed. The
// Device is checked concurrently with the commit. A commit on a Device that is not clear is taken back before the
// caller has an answer. An open window cannot be closed again. If the Lease would open its payer's window, the
// check comes first.
func (m *machineEffects) warmStart(l *Lease) {
	machine, worker, a, at, begin := m.machine, l.Worker, l.allocation, m.now(), m.prepareResume(l)
	m.effectsRunning.Go(func() {
		stack.Reserve()
		resumed := begin()
		err := m.store.warmStart(m.work, l, worker, at, m.config.QueueTimeout, false)
		busy := resumed()
		switch {
		case busy != nil:
			m.log.Warn("warm worker not reusable", zap.Int("slot", a[0].Index), zap.Error(busy))
			if err == nil {
				m.withdrawWarmStart(l)
			}
			err = errUnfit
		case errors.Is(err, errWindowClosed):
			err = m.store.warmStart(m.work, l, worker, at, m.config.QueueTimeout, true)
		}
		if !m.doThenDisarm(machine, l, func(sc *scheduler) { sc.onWarmStarted(l, m.now(), err) }) && err == nil {
			l.State, l.Reason, l.Ended, l.undelivered = Withdrawn, space.EndedByHost, m.now(), true
			err = errors.Join(ErrGone, m.store.settle(m.work, l))
		}
		l.warmStarted <- err
	})
}

// withdrawWarmStart returns the hold of a warm start that its client has not been told about. If the database
// refuses now, it is retried in the background.
func (m *machineEffects) withdrawWarmStart(l *Lease) {
	over := &Lease{Request: l.Request, ID: l.ID, State: Withdrawn, Reason: "warm worker cannot go on", Ended: m.now(), settled: make(chan struct{})}
	if err := m.store.settle(m.work, over); err != nil {
		m.log.Error("settle lease", zap.Object("lease", over), zap.Error(err))
		m.settle(over) // the effect that called this is still running, so Run still waits for this one
	}
}

func (m *machineEffects) resume(l *Lease) {
	machine, worker, a, begin := m.machine, l.Worker, l.allocation, m.prepareResume(l)
	m.effectsRunning.Go(func() {
		if err := begin()(); err != nil {
			m.log.Warn("warm worker not reusable", zap.Int("slot", a[0].Index), zap.Error(err))
			machine.Disarm(l.ID) // before the scheduler resumes another worker for it
			m.do(func(sc *scheduler) { sc.onUnfit(l) })
			return
		}
		at := m.now()
		err := m.store.activate(m.work, l, worker, at, at)
		if err != nil {
			m.log.Error("resume lease", zap.Object("lease", l), zap.Error(err))
		}
		m.doThenDisarm(machine, l, func(sc *scheduler) { sc.onResumed(l, m.now(), err) })
	})
}

// doThenDisarm is do for the outcome of a Lease that was armed before its commit. Unless it is active then, it is disarmed.
func (m *machineEffects) doThenDisarm(machine Machine, l *Lease, call func(*scheduler)) (running bool) {
	running = m.do(func(sc *scheduler) {
		if call(sc); l.State != Active && l.State != Unreachable {
			machine.Disarm(l.ID)
		}
	})
	if !running {
		machine.Disarm(l.ID)
	}
	return running
}

func (m *machineEffects) watch(w Worker) {
	machine := m.machine
	m.watching.Go(func() {
		machine.Wait(m.work, w)
		m.do(func(sc *scheduler) { sc.onExit(w) })
	})
}

func (m *machineEffects) dismiss(w Worker) {
	machine := m.machine
	m.effectsRunning.Go(func() {
		if err := machine.End(m.work, w, 0); err != nil {
			m.log.Warn("replaced worker could not be ended", zap.Int("worker", w.PID), zap.Error(err))
		}
	})
}

// changed implements effects.
func (m *machineEffects) changed(l *Lease) {
	l.updateGuard(m.machine, m.now())
	m.Broker.changed(l)
}

func (m *machineEffects) reportedLate(e EndedLease) {
	m.log.Warn("machine reported the end of a settled lease", zap.String("machine", m.machine.Name()), zap.String("lease", e.Lease[:min(8, len(e.Lease))]), zap.Duration("used", e.Used))
}

func (m *machineEffects) expired(l *Lease) {
	end := End{Space: l.Space, Event: l.Event, Declared: l.Declared, Used: m.now().Sub(l.Active)}
	if m.config.Expired != nil {
		m.effectsRunning.Go(func() { m.config.Expired(end) })
	}
}

// settleRetryDelay is the pause after a settlement that the database refused. The seconds stay held meanwhile.
const settleRetryDelay = time.Second

// settle retries for as long as the host runs: a disk may be full for an hour, and the payer gets the rest back
// afterwards.
func (m *machineEffects) settle(l *Lease) {
	machine := m.machine
	m.effectsRunning.Go(func() {
		stack.Reserve()
		defer close(l.settled)
		if err := m.showNodes(m.work, machine, l.Space); err != nil {
			m.log.Warn("hide nodes of device", zap.Object("lease", l), zap.Error(err))
		}
		for {
			err := m.store.settle(m.work, l)
			if err == nil {
				if l.restored {
					machine.Disarm(l.ID)
				}
				return
			}
			m.log.Error("settle lease", zap.Object("lease", l), zap.Error(err))
			if isFinal(err) || !pause(m.work.Done(), settleRetryDelay) {
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

func (m *machineEffects) reclaim(a allocation, l *Lease, grace time.Duration) {
	machine, worker := m.machine, l.Worker
	m.effectsRunning.Go(func() {
		err := m.endAndClear(machine, a, worker, grace)
		if err != nil {
			m.log.Warn("slot not reclaimed", zap.Int("slot", a[0].Index), zap.Error(err))
		}
		<-l.settled
		if err == nil {
			m.log.Info("slot returned", zap.Object("lease", l), zap.Int("worker", worker.PID))
		}
		m.do(func(sc *scheduler) { sc.onReclaimed(a, err) })
	})
}

// endAndClear ends the worker and waits until the Device is clear. Once the host stops, it does not wait for the
// Device.
func (m *machineEffects) endAndClear(machine Machine, a allocation, worker Worker, grace time.Duration) error {
	if worker.PID != 0 {
		if err := machine.End(m.work, worker, grace); err != nil {
			return notReclaimed(err)
		}
	}
	for deadline, wait := time.Now().Add(reclaimTimeout), 5*time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := m.checkClear(machine, a, m.currentNeighbours(a))
		if err == nil || time.Now().After(deadline) || !pause(m.done, wait) {
			return err
		}
	}
}

// notReclaimed is the error of a Slot whose worker may still run.
func notReclaimed(err error) error {
	if errors.Is(err, errNotReclaimed) {
		return err
	}
	return fmt.Errorf("%w: %w", errNotReclaimed, err)
}
