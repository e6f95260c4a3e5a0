package host

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/space"
	"spacehost/worker"
)

// The interval of the looks at a Space's folder (`run --watch`). Folders that are mounted into a container from macOS or
// Windows report no events, so events are not used. A look at a large folder takes long, and then the interval is longer: looks
// take at most a tenth of the time.
const (
	shortestWatch = 20 * time.Millisecond
	watchShare    = 10
)

// watchedSuffixes are those of files that a Space consists of. What it writes for its visitors does not restart it.
var watchedSuffixes = []string{".py", ".html", ".css", ".js"}

// buildFiles decide the environment. packages.txt decides nothing here, but its warning changes (build, packagesWarning).
var buildFiles = []string{"README.md", "requirements.txt", "pre-requirements.txt", "packages.txt"}

// skippedFolders may contain thousands of files that are not the Space's, as those of space.IsDerived.
var skippedFolders = []string{"node_modules", "venv", "env"}

// maxWatched bounds the files of one look.
const maxWatched = 20000

// sourceWatch acts when the files of a Space change: restart for its code, rebuild for what decides its environment.
type sourceWatch struct {
	folder  string
	restart func(changed string) // a path relative to folder
	rebuild func(changed string)
}

// fileState tells a changed file from an unchanged one.
type fileState struct {
	size     int64
	modified time.Time
}

// look returns the watched files by their path relative to the folder. A folder that cannot be read is left out.
func (w sourceWatch) look() map[string]fileState {
	found := map[string]fileState{}
	_ = filepath.WalkDir(w.folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || len(found) >= maxWatched:
			return fs.SkipDir
		case entry.IsDir():
			if path != w.folder && (strings.HasPrefix(entry.Name(), ".") || space.IsDerived(entry.Name()) || slices.Contains(skippedFolders, entry.Name())) {
				return fs.SkipDir
			}
		case slices.Contains(watchedSuffixes, filepath.Ext(path)) || filepath.Dir(path) == w.folder && slices.Contains(buildFiles, entry.Name()):
			if info, err := entry.Info(); err == nil {
				relative, _ := filepath.Rel(w.folder, path) // it is below the folder
				found[relative] = fileState{info.Size(), info.ModTime()}
			}
		}
		return nil
	})
	return found
}

// run looks until ctx ends. It acts one look after a change, when no further change has followed: an editor or `git checkout`
// writes several files.
func (w sourceWatch) run(ctx context.Context) {
	acted := w.look()
	for before, pause := acted, shortestWatch; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		now := w.look()
		pause = max(shortestWatch, watchShare*time.Since(began))
		if maps.Equal(now, before) && !maps.Equal(now, acted) {
			w.act(changes(acted, now))
			acted = now
		}
		before = now
	}
}

func (w sourceWatch) act(changed []string) {
	var code, decisive []string
	for _, path := range changed {
		if slices.Contains(buildFiles, path) {
			decisive = append(decisive, path)
		} else {
			code = append(code, path)
		}
	}
	if len(decisive) > 0 {
		w.rebuild(strings.Join(decisive, ", "))
	}
	switch {
	case len(code) > 1:
		w.restart(fmt.Sprintf("%s and %d more files", code[0], len(code)-1))
	case len(code) == 1:
		w.restart(code[0])
	}
}

// changes lists the paths that differ, sorted.
func changes(before, now map[string]fileState) []string {
	all := maps.Clone(before)
	maps.Copy(all, now)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(path string) bool {
		b, was := before[path]
		n, is := now[path]
		return was == is && b == n
	})
}

// watchSource watches the Space's files until ctx ends. A build runs beside the Space; a change during a build starts it anew.
func (s *spaceRun) watchSource(ctx context.Context) {
	stop, ended := func() {}, make(chan struct{})
	close(ended)
	end := func() { stop(); <-ended }
	defer func() { end() }()
	sourceWatch{
		folder: s.space().Dir,
		restart: func(changed string) {
			s.note(changed + " changed; the Space restarts.")
			s.supervisor.Restart(worker.Restart{Now: true})
		},
		rebuild: func(changed string) {
			end()
			var building context.Context
			building, stop = context.WithCancel(ctx)
			ended = make(chan struct{})
			go func(done chan<- struct{}) {
				defer close(done)
				s.rebuild(building, changed)
			}(ended)
		},
	}.run(ctx)
}

// rebuild builds the environment that the changed files ask for, beside the running Space, and then lets the Space start with
// them. After an error the Space continues as it is.
func (s *spaceRun) rebuild(ctx context.Context, changed string) {
	r, err := s.renew(ctx, time.Time{}, s.host.buildProgress())
	if ctx.Err() != nil {
		return // a further change, or the end of the host
	}
	if err != nil {
		s.reportEdit(changed, err)
		return
	}
	if s.supervisor.Status().Stage.IsUp() && r.same {
		s.note(changed + " changed; the environment stays the same.")
		return
	}
	s.note(changed + " changed; the Space starts with it.")
	s.applyRenewal(r, "a change of "+changed)
}

// renewal is a Space's folder as it was read now. Its environment has been built.
type renewal struct {
	settings    config.SpaceSettings // with which it was read
	front       *space.Space
	environment string // the folder
	same        bool   // the next start would be like the last one
}

// renew reads README.md again, and builds the environment that the Space's files ask for. An environment that was built before
// builtAfter does not count. The build may take minutes.
func (s *spaceRun) renew(ctx context.Context, builtAfter time.Time, progress func(build.Step)) (r renewal, err error) {
	latest := s.latest()
	r.settings = latest.settings
	if r.front, err = s.host.settings().OpenSpace(r.settings); err != nil {
		return r, err
	}
	spec := s.specOf(r.front)
	if builtAfter.After(spec.BuiltAfter) {
		spec.BuiltAfter = builtAfter
	}
	env, err := s.builder(progress).Build(ctx, spec)
	if err != nil {
		return r, err
	}
	defer env.Release() // the next start uses it again
	s.noteNew(latest.space.Warnings, slices.Concat(r.front.Warnings, env.Warnings))
	if needsNewHost(latest.space, r.front) {
		s.note("README.md: custom_headers or disable_embedding changed; a new start of spacehost applies it.")
	}
	r.environment = env.Dir
	built := s.env()
	r.same = built != nil && built.Dir == env.Dir && isSame(latest.space, r.front)
	return r, nil
}

// applyRenewal lets the Space start with r. A reload that has changed its settings since, or removed it, has precedence.
func (s *spaceRun) applyRenewal(r renewal, by string) {
	s.host.reloading.Lock()
	defer s.host.reloading.Unlock()
	next := *s.latest()
	if s.leaving.Load() || !reflect.DeepEqual(next.settings, r.settings) {
		return
	}
	next.space = r.front
	s.apply(next, true, by)
}

// restartAnew restarts a running Space with its files as they are now: a changed environment is built beside the running Space.
// After an error, which is reported, the Space restarts as it was.
func (s *spaceRun) restartAnew(ctx context.Context, restart worker.Restart) {
	s.renewing.Lock() // in the order of the requests: a later one ends the drain of an earlier one
	defer s.renewing.Unlock()
	r, err := s.renew(ctx, time.Time{}, s.host.buildProgress())
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		s.reportUnapplied(err, "The Space restarts with its former README.md and environment.")
	case !r.same:
		s.note("Its files have changed: it restarts with another environment or README.md.")
		s.applyRenewal(r, restart.By)
		if !restart.Now {
			return
		}
	}
	s.supervisor.Restart(restart)
}

// reportEdit reports that a changed file has no effect, because of an error.
func (s *spaceRun) reportEdit(changed string, err error) {
	next := "The next change of this file starts another try."
	if s.supervisor.Status().Stage.IsUp() {
		next = "The Space continues as before the change. " + next
	}
	s.reportUnapplied(err, fmt.Sprintf("%s was not applied. %s", changed, next))
}

// reportUnapplied prints and logs why changed files have no effect. next follows the error on the screen.
func (s *spaceRun) reportUnapplied(err error, next string) {
	s.host.log.Warn("changed files not applied", zap.String("space", s.space().Name), zap.Error(err))
	var text strings.Builder
	Explain(&text, s.space().Name, err, true)
	s.host.screen.note(text.String() + "  " + next)
}

// noteNew prints the warnings that are not among those before.
func (s *spaceRun) noteNew(before, now []string) {
	for _, warning := range now {
		if !slices.Contains(before, warning) {
			s.note("warning: " + warning)
		}
	}
}

// needsNewHost reports whether a key of the front matter changed that the Space's address applies at its start only.
func needsNewHost(before, after *space.Space) bool {
	return !reflect.DeepEqual(responseHeaders(before), responseHeaders(after))
}

// isSame reports whether two readings of a Space differ in their warnings at most.
func isSame(before, after *space.Space) bool {
	b, a := *before, *after
	b.Warnings, b.Refused, a.Warnings, a.Refused = nil, nil, nil, nil
	return reflect.DeepEqual(b, a)
}

// mayStandBy reports whether a second process may wait for the next restart. At level files, and with an overlay over the
// Space's folder, it would share files with the current start that each start must have for itself.
func (s *spaceRun) mayStandBy() bool {
	return s.host.settings().WatchSource && s.level() != config.IsolationFiles &&
		s.settings().SourceAt(s.level(), s.host.settings().IsServe()) != config.SourceOverlay
}
