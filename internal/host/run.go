package host

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"spacehost/internal/clock"
)

// Run recovers the leases of a crashed host, then builds, starts and serves the Spaces. It returns when ctx ends or a part of
// the host fails; with `run`, also when a Space fails to start.
func (h *Host) Run(ctx context.Context) error {
	if err := h.recover(ctx); err != nil {
		return err
	}
	h.greet()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := h.startServices(cancel)
	err := h.runSpaces(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		err = nil // Ctrl-C, perhaps during a build
	} else if err == nil {
		err = cause
	}
	stop()
	return err
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
	start("server", func() error { return h.server.Run(serving) })
	group.Go(func() error { clock.Watch(serving, systemTime, h.systemClockChanged); return nil })
	group.Go(func() error { h.retention().run(serving); return nil })
	group.Go(func() error { h.diskWatch().run(serving); return nil })
	group.Go(func() error { h.keepReserve(serving); return nil })
	start("leases", func() error { return h.broker.Run(lending) })
	start("processes", func() error { return h.processes.Run(lending) })
	group.Go(func() error { h.manager().run(serving); return nil })
	for _, s := range h.spaces {
		start("queue", func() error { return s.queue.Run(serving) })
	}
	return func() {
		stopServing()
		stopLending()
		_ = group.Wait() // errors went to failed
	}
}

// runSpaces runs all Spaces until ctx ends. With `run`, a Space that fails to start ends the others: the user started them
// together and waits for one exit code. With `serve`, each Space has its own visitors, so the others continue. With `run
// --watch`, the user is about to mend the Space.
func (h *Host) runSpaces(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	for _, s := range h.spaces {
		run := s.run
		switch {
		case h.settings.IsServe():
			run = s.runWithRetries
		case h.settings.WatchSource:
			run = s.runWatched
			running.Go(func() error { s.watchSource(ctx); return nil })
		}
		running.Go(func() error { return h.withSpaceName(s, run(ctx)) })
	}
	running.Go(func() error { return h.announceReady(ctx) })
	return running.Wait()
}

// withSpaceName prefixes an error with the name of its Space if this host runs several.
func (h *Host) withSpaceName(s *spaceRun, err error) error {
	if err == nil || len(h.spaces) == 1 {
		return err
	}
	return fmt.Errorf("%s: %w", s.space.Name, err)
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
	return h.broker.Recover(ctx)
}

func (h *Host) retention() retention {
	return retention{keep: h.settings.Keep, now: h.clock.Now, purgeHistory: h.broker.Forget, purgeTokens: h.people.Forget, log: h.log.Named("retention")}
}
