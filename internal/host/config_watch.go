package host

import (
	"context"
	"maps"
	"os"
	"time"

	"spacehost/internal/config"
)

// configWatch reloads the configuration when one of its files changes (`serve --watch-config`). It looks at the files for the
// reason of watchInterval.
type configWatch struct {
	sources func() []string      // paths of the files
	applied map[string]fileState // what the files were like when the settings in force were read; nil: as at the first look
	check   func() error         // whether the files can be applied
	reload  func()
}

// wrongLooks is the number of looks at an unchanged file with a mistake before the mistake is reported: an editor may have
// written half of it.
const wrongLooks = 3

func (w configWatch) look() map[string]fileState {
	found := map[string]fileState{}
	for _, path := range w.sources() {
		if info, err := os.Stat(path); err == nil {
			found[path] = fileState{info.Size(), info.ModTime()}
		}
	}
	return found
}

// run looks at each tick until ctx ends. It reloads one look after a change, when no further change has followed.
func (w configWatch) run(ctx context.Context, ticks <-chan time.Time) {
	before, quiet := w.look(), 0
	applied := w.applied
	if applied == nil {
		applied = before
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		now := w.look()
		quiet++
		if !maps.Equal(now, before) {
			before, quiet = now, 0
		}
		if quiet == 0 || maps.Equal(now, applied) || quiet < wrongLooks && w.check() != nil {
			continue
		}
		w.reload()
		applied = w.look() // of the files that the new configuration names
		for path := range applied {
			if state, known := now[path]; known {
				applied[path] = state // a change since then is not applied yet
			}
		}
		before, quiet = applied, 0
	}
}

// watchInterval is the interval of the looks at the configuration.
const watchInterval = time.Second

func (h *Host) watchConfig(ctx context.Context) {
	ticks := time.NewTicker(watchInterval)
	defer ticks.Stop()
	applied := map[string]fileState{}
	for path, state := range h.settings().SourceStates {
		applied[path] = fileState{state.Size, state.Modified}
	}
	configWatch{
		applied: applied, // an edit during the start of the host is applied too
		sources: func() []string { return h.settings().Sources },
		check:   func() error { _, err := config.Check(h.settings().File, h.settings().StateFlag); return err },
		reload:  func() { _, _ = h.ReloadBy(ctx, "--watch-config") }, // it reports its errors
	}.run(ctx, ticks.C)
}
