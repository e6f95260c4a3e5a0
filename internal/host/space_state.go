package host

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"spacehost/internal/config"
	"spacehost/internal/space"
	"spacehost/server"
)

// spaceState is what a Space is between two starts. A reload replaces it as a whole; nothing changes a stored one.
type spaceState struct {
	settings config.SpaceSettings
	space    *space.Space     // by its name alone if its README.md could not be read (config.SpaceSettings.Unread)
	level    config.Isolation // in force
	site     server.Site      // an origin of its own: the Space's JavaScript may attack the console and other Spaces
}

// newSpaceRun returns a Space that is not wired yet.
func newSpaceRun(h *Host, settings config.SpaceSettings, opened *space.Space) *spaceRun {
	s := &spaceRun{host: h, failed: make(chan struct{}), gone: make(chan struct{}), room: roomState{refused: rate.Sometimes{Interval: time.Minute}}}
	s.state.Store(&spaceState{settings: settings, space: opened})
	return s
}

// reread reads the folder before each try of `serve`: a Space whose README.md was wrong starts once it is right. Its error is that
// of config.Settings.OpenSpace. The first try uses what was read to open the host or for the reload.
func (s *spaceRun) reread() error {
	if !s.host.settings().IsServe() || s.isFresh.Swap(false) {
		return nil
	}
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	found, err := s.host.settings().OpenSpace(*s.settings())
	if err != nil {
		return err
	}
	before := s.space()
	if isSame(before, found) {
		return nil
	}
	s.noteNew(before.Warnings, found.Warnings)
	s.change(func(now *spaceState) { now.space = found })
	s.configureNextStart()
	s.shelf.SetStorage(s.storage())
	return nil
}

func (s *spaceRun) settings() *config.SpaceSettings { return &s.state.Load().settings }
func (s *spaceRun) space() *space.Space             { return s.state.Load().space }
func (s *spaceRun) level() config.Isolation         { return s.state.Load().level }
func (s *spaceRun) site() server.Site               { return s.state.Load().site }

// latest returns the state of the next start, or of the current one.
func (s *spaceRun) latest() *spaceState {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	if s.next != nil {
		return s.next
	}
	return s.state.Load()
}

// change stores a changed copy of the state. Callers never overlap: New, then reloads and begin, which hold nextMu.
func (s *spaceRun) change(edit func(*spaceState)) {
	changed := *s.state.Load()
	edit(&changed)
	s.state.Store(&changed)
}

// apply gives the Space other settings. Those that take effect at once do so; with restart, the others take effect when the
// running start has ended. by names the actor.
func (s *spaceRun) apply(next spaceState, restart bool, by string) {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	s.change(func(now *spaceState) { now.settings = now.settings.WithAtOnce(next.settings) })
	if !restart && s.next == nil {
		return
	}
	if s.next != nil && s.next.site != s.state.Load().site {
		s.host.leave(s.next, &next)
	}
	s.next = &next
	if s.cancelAttempt != nil {
		s.cancelAttempt(restartCause(by))
	}
}

// begin returns the context of the next attempt to run the Space, after it has applied the settings of a reload. The context
// ends when another reload changes them.
func (s *spaceRun) begin(ctx context.Context) (attempt context.Context, end func()) {
	s.nextMu.Lock()
	defer s.nextMu.Unlock()
	if s.next != nil {
		before, next := s.state.Load(), s.next
		s.next = nil
		s.state.Store(next)
		s.host.leave(before, next)
		s.configureNextStart()
		s.shelf.SetStorage(s.storage())
		s.boundLogs()
		s.host.server.SetLimits(s.host.connectionLimits())
	}
	attempt, cancel := context.WithCancelCause(ctx)
	s.cancelAttempt = cancel
	return attempt, func() { cancel(nil) }
}
