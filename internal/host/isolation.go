package host

import (
	"errors"
	"fmt"
	"path/filepath"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/sandbox"
)

// levels is what this machine offers.
type levels struct {
	namespaces error // why the level is not available; nil if it is
	files      sandbox.FilesProbe
	overlay    bool // the file system of the state folder can hold layers
	// users is tried only if a Space demands it. Layers need more of the kernel than at level namespaces (Linux 5.19).
	users        error
	usersOverlay bool
	// tried and usersTried tell that the fields above are known. A reload does not try again.
	tried, usersTried bool
}

// canLayer reports whether the Space's folders can have layers.
func (s *spaceRun) canLayer() bool {
	if s.level() == config.IsolationUsers {
		return s.host.levels.usersOverlay
	}
	return s.host.levels.overlay
}

// selectIsolation determines the level of each Space. A level that the settings demand and that this machine does not
// offer ends the start: no Space ever runs at a lower level than demanded.
func (h *Host) selectIsolation() error {
	for _, s := range h.all() {
		if s.settings().Isolation != config.IsolationNone && !h.levels.tried {
			if err := h.probeLevels(); err != nil {
				return err
			}
		}
		if err := s.selectLevel(); err != nil {
			return err
		}
		if err := s.checkFolder(); err != nil {
			return err
		}
		h.log.Info("isolation", zap.String("space", s.space().Name), zap.Stringer("demanded", s.settings().Isolation), zap.Stringer("level", s.level()))
	}
	return nil
}

// probeLevels tries each level in a process of this host.
func (h *Host) probeLevels() error {
	probe, err := sandbox.Probe(h.state.path("run"))
	if err != nil {
		return fmt.Errorf("try levels of isolation: %w", err)
	}
	h.levels = levels{namespaces: probe.Err, overlay: probe.Overlay, files: sandbox.ProbeFiles(), tried: true}
	if err := h.probeUsers(); err != nil {
		return err
	}
	if !probe.Overlay && probe.Err == nil || h.levels.users == nil && len(*h.uids.Load()) > 0 && !h.levels.usersOverlay {
		h.screen.note(fmt.Sprintf("warning: the file system of %s cannot hold layers: environments and Space folders are read-only, and no model of this user is shared", h.state.dir))
	}
	return nil
}

// selectLevel chooses the level of a Space.
func (s *spaceRun) selectLevel() error {
	level := s.settings().Isolation
	if level != config.IsolationAuto {
		s.change(func(state *spaceState) { state.level = level })
		if err := s.host.levels.lacks(level); err != nil {
			return s.settings().Places["isolation"].Mistake("this machine does not offer the level %s: %w; run `spacehost doctor` for the remedy, or choose another level", level, err)
		}
		return nil
	}
	for level = config.IsolationNamespaces; s.host.levels.lacks(level) != nil; level-- {
	}
	s.change(func(state *spaceState) { state.level = level })
	if least := s.settings().Least(); level < least {
		return s.settings().Places["isolation"].Mistake("the settings of %s need the level %s, which this machine does not offer: %w; run `spacehost doctor` for the remedy",
			s.space().Name, least, s.host.levels.lacks(least))
	}
	return nil
}

// checkFolder refuses a folder with which the Space would receive what its level withholds.
func (s *spaceRun) checkFolder() error {
	if s.level() == config.IsolationNone {
		return nil
	}
	warning, err := config.CheckSpaceFolder(s.space().Dir, s.host.state.dir)
	if err == nil && warning != "" {
		s.note("warning: " + warning)
	}
	return err
}

// warnOfOwnInterpreter warns of an environment in the Space's folder. At level files the Space may change it, and the host runs its
// interpreter before a start, outside of the level. At level namespaces a layer receives the changes.
func (s *spaceRun) warnOfOwnInterpreter() {
	if s.level() == config.IsolationFiles && s.env().Dir != "" && isBelow(s.env().Dir, filepath.Clean(s.space().Dir)) {
		s.note(fmt.Sprintf("warning: the Space can change its environment %s, whose interpreter spacehost also runs without isolation. "+
			"Move the environment out of the Space's folder.", s.env().Dir))
	}
}

// lacks returns why a level is not available, nil if it is.
func (l levels) lacks(level config.Isolation) error {
	switch level {
	case config.IsolationNone:
		return nil
	case config.IsolationFiles:
		return l.files.Err
	case config.IsolationNamespaces:
		return l.namespaces
	case config.IsolationUsers:
		return l.users
	}
	return errors.New("unknown level")
}

// isolationLine describes the level in force for the operator, and why it is not a higher one.
func (s *spaceRun) isolationLine() string {
	promise := map[config.Isolation]string{
		config.IsolationNone:       "not isolated from this machine: run only code that you would run yourself",
		config.IsolationFiles:      "only its files are isolated from this machine",
		config.IsolationNamespaces: "isolated from this machine: own files, processes and network",
		config.IsolationUsers:      fmt.Sprintf("isolated from this machine: own files, processes, network and uid %d", s.uid()),
	}[s.level()]
	line := fmt.Sprintf("%s: %s (isolation: %s)", s.space().Name, promise, s.level())
	if s.settings().Isolation != config.IsolationAuto {
		return line
	}
	for level := s.level() + 1; level <= config.IsolationNamespaces; level++ {
		line += fmt.Sprintf("\n  level %s is not available: %v; see `spacehost doctor`", level, s.host.levels.lacks(level))
	}
	if s.level() == config.IsolationFiles {
		for _, left := range s.host.levels.files.Left {
			line += "\n  this kernel does not restrict: " + left
		}
	}
	return line
}

// served returns the folders from which the host itself serves files. A layer hides the Space's version of a file from the
// host, so the Space's own server serves what lies in a layer.
func (s *spaceRun) served(home string) []string {
	if s.isSandboxed() && s.settings().SourceAt(s.level(), s.host.settings().IsServe()) == config.SourceOverlay {
		return []string{home}
	}
	return []string{home, filepath.Clean(s.space().Dir)}
}

// isSandboxed reports whether the Space runs in a sandbox of its own.
func (s *spaceRun) isSandboxed() bool { return s.level() >= config.IsolationNamespaces }
