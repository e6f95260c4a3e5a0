package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"spacehost/internal/clock"
)

// Run recovers the leases of a crashed host, then builds, starts and serves the Spaces. It returns when ctx ends or a part of
// the host fails; with `run`, also when a Space fails to start.
func (h *Host) Run(ctx context.Context) error {
	if err := h.recover(ctx); err != nil {
		return err
	}
	defer h.markRunning()()
	h.greet()
	h.limitTotal()
	began := h.clock.Now()
	h.ran.Store(true)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := h.startServices(cancel)
	defer context.AfterFunc(ctx, h.extendStop)()
	err := h.runSpaces(ctx)
	h.log.Info("host ends", zap.NamedError("cause", context.Cause(ctx)), zap.Error(err))
	if leaves(ctx) {
		h.leaving.Store(true)
		h.broker.Keep()
		err = nil
	} else if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		err = nil // Ctrl-C, perhaps during a build
	} else if err == nil {
		err = cause
	}
	stop()
	h.showAdvice(began)
	return err
}

// stopReserve is what the end of a host takes at most after its drain: the ends of Spaces, streams and leases.
const stopReserve = 30 * time.Second

// extendStop lets the service manager wait for the drain, which may be longer than TimeoutStopSec of the unit. The drain of a node that
// leaves, which may be longer still, counts no more.
func (h *Host) extendStop() {
	time.AfterFunc(h.settings().Drain, h.hurryDepartures)
	if drain := h.settings().Drain; drain > 0 {
		h.notifyManager(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (drain + stopReserve).Microseconds()))
	}
}

// startServices runs everything except the Spaces. The first failure is passed to failed. The returned function ends the
// services in order, after runSpaces has ended the Spaces: intake and Jobs, then leases. The database is closed last, by
// Close.
func (h *Host) startServices(failed context.CancelCauseFunc) (stop func()) {
	serving, stopServing := context.WithCancel(context.Background())
	lending, stopLending := context.WithCancel(context.Background())
	var group errgroup.Group
	start := func(what string, run func() error) {
		group.Go(func() error {
			if err := run(); err != nil && !errors.Is(err, context.Canceled) {
				failed(fmt.Errorf("%s: %w", what, err))
			}
			return nil
		})
	}
	served := make(chan struct{})
	start("server", func() error {
		defer close(served)
		return h.server.Run(serving)
	})
	group.Go(func() error { clock.Watch(serving, systemTime, h.systemClockChanged); return nil })
	group.Go(func() error { h.retention().run(serving); return nil })
	group.Go(func() error { h.people.EndExpired(serving); return nil })
	group.Go(func() error { h.diskWatch().run(serving); return nil })
	group.Go(func() error { h.quotaWatch.run(serving); return nil })
	group.Go(func() error { h.refusals.Run(serving, h.ledger, h.refusalsUnsaved); return nil })
	group.Go(func() error { h.sampler.run(serving); return nil })
	group.Go(func() error { h.totalWatch().run(serving); return nil })
	group.Go(func() error { h.keepReserve(serving); return nil })
	start("leases", func() error { return h.broker.Run(lending) })
	if h.cluster != nil { // nodes join the broker, so it runs
		start("nodes", func() error { return h.cluster.run(serving) })
		group.Go(func() error { h.runPools(serving); return nil })
	}
	start("processes", func() error { return h.processes.Run(lending) })
	group.Go(func() error { h.manager().run(serving); return nil })
	h.running.serving, h.running.start = serving, start
	return func() {
		stopServing()
		if h.leaving.Load() {
			<-served // a /release that comes later waits for the next host, and is not lost
		}
		stopLending()
		_ = group.Wait() // errors went to failed
	}
}

// spaceRuntime is what a Space needs to run.
type spaceRuntime struct {
	spaces  context.Context // ends all Spaces
	serving context.Context // ends the queues, after the Spaces
	group   *errgroup.Group // of the Spaces
	start   func(what string, run func() error)
	over    bool // no Space may start any more; guarded by Host.reloading
}

// runSpaces runs all Spaces until ctx ends. With `run`, a Space that fails to start ends the others: the user started them
// together and waits for one exit code. With `serve`, each Space has its own visitors, so the others continue. With `run
// --watch`, the user is about to mend the Space.
func (h *Host) runSpaces(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	h.running.spaces, h.running.group = ctx, group
	for _, s := range h.all() {
		h.launchSpace(s)
	}
	group.Go(func() error { return h.announceReady(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		h.reloading.Lock() // waits for a reload that launches Spaces
		defer h.reloading.Unlock()
		h.running.over = true
		return nil
	})
	close(h.started)
	if h.settings().WatchConfig {
		group.Go(func() error { h.watchConfig(ctx); return nil })
	}
	return group.Wait()
}

// launchSpace runs one Space until it is stopped or all Spaces end. A Space that a reload has removed gives everything back.
func (h *Host) launchSpace(s *spaceRun) {
	ctx, stop := context.WithCancelCause(h.running.spaces)
	queueing, stopQueue := context.WithCancel(h.running.serving)
	s.stop = stop
	queueEnded := make(chan struct{})
	h.running.start("queue", func() error {
		defer close(queueEnded)
		return s.queue.Run(queueing)
	})
	run := s.runUntilFailure
	if h.settings().IsServe() || h.settings().WatchSource {
		run = s.runWithRetries
	}
	if h.settings().WatchSource {
		h.running.group.Go(func() error { s.watchSource(ctx); return nil })
	}
	h.running.group.Go(func() error {
		err := run(ctx)
		s.env().Release()
		if !s.leaving.Load() || h.running.spaces.Err() != nil {
			context.AfterFunc(h.running.serving, stopQueue)
			return h.withSpaceName(s, err)
		}
		stopQueue()
		<-queueEnded
		h.forget(s)
		return nil
	})
}

// withSpaceName prefixes an error with the name of its Space if this host runs several.
func (h *Host) withSpaceName(s *spaceRun, err error) error {
	if err == nil || len(h.all()) == 1 {
		return err
	}
	return fmt.Errorf("%s: %w", s.space().Name, err)
}

// recover restarts quota windows that lie in the future of this clock, and settles the leases of a crashed host.
func (h *Host) recover(ctx context.Context) error {
	moved, err := h.ledger.Reanchor(ctx, h.clock.Now())
	if err != nil {
		return err
	}
	if moved > 0 {
		h.screen.note(fmt.Sprintf("warning: %d quota windows started in the future of this clock (after a clock advance, or a wrong system clock); they start now", moved))
	}
	return h.recoverLeases(ctx)
}

func (h *Host) retention() retention {
	return retention{keep: func() time.Duration { return h.settings().Keep }, now: h.clock.Now, purgeHistory: h.forgetHistory, purgeStages: h.stages.Forget, purgeTokens: h.people.Forget, purgeAudit: h.audit.Forget, log: h.log.Named("retention")}
}
