package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
	"spacehost/worker"
)

// The interval of the looks at a Space's folder (`run --watch`). Folders that are mounted into a container from macOS or
// Windows report no events, so events are not used. A look at a large folder takes long, and then the interval is longer: looks
// take at most a tenth of the time.
const (
	shortestWatch = 50 * time.Millisecond
	watchShare    = 10
)

// watchedSuffixes are those of files that a Space consists of. What it writes for its visitors does not restart it.
var watchedSuffixes = []string{".py", ".html", ".css", ".js"}

// buildFiles decide the environment. packages.txt decides nothing here, but its warning changes (build, packagesWarning).
var buildFiles = []string{"README.md", "requirements.txt", "pre-requirements.txt", "packages.txt"}

// skippedFolders may contain thousands of files that are not the Space's.
var skippedFolders = []string{"node_modules", "__pycache__", "venv", "env"}

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
			if path != w.folder && (strings.HasPrefix(entry.Name(), ".") || slices.Contains(skippedFolders, entry.Name())) {
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
		folder: s.space.Dir,
		restart: func(changed string) {
			s.note(changed + " changed; the Space restarts.")
			s.supervisor.Restart()
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

// rebuild builds the environment that the changed files ask for, beside the running Space, and then lets the Space change to
// it. After an error the Space continues with its present one.
func (s *spaceRun) rebuild(ctx context.Context, changed string) {
	front, err := space.Open(s.space.Dir)
	if err != nil {
		s.reportEdit(changed, err)
		return
	}
	before := s.edited.Swap(front)
	env, err := s.builder().Build(ctx, s.buildSpec(), false)
	if ctx.Err() != nil {
		return // a further change, or the end of the host
	}
	if err != nil {
		s.edited.Store(before)
		s.reportEdit(changed, err)
		return
	}
	if before == nil {
		before = s.space
	}
	for _, warning := range slices.Concat(front.Warnings, env.Warnings) {
		if !slices.Contains(before.Warnings, warning) {
			s.note("warning: " + warning)
		}
	}
	if needsNewHost(*before, *front) {
		s.note("README.md: keys other than sdk_version and python_version changed. Press Ctrl-C and start spacehost again to apply them.")
	}
	if s.supervisor.Status().Stage == space.Running && s.current.Load() == env.Dir {
		s.note(changed + " changed; the environment stays the same.")
		return
	}
	s.note(changed + " changed; the Space starts with its new environment.")
	s.supervisor.Replace()
}

// reportEdit reports that a changed file has no effect, because of an error.
func (s *spaceRun) reportEdit(changed string, err error) {
	s.host.log.Warn("edited files not applied", zap.String("space", s.space.Name), zap.Error(err))
	var text strings.Builder
	Explain(&text, s.space.Name, err)
	next := "The next change of this file starts another try."
	if s.supervisor.Status().Stage == space.Running {
		next = "The Space continues as before the change. " + next
	}
	s.host.screen.note(fmt.Sprintf("%s  %s was not applied. %s", text.String(), changed, next))
}

// needsNewHost reports whether a key of the front matter changed that a running host does not apply.
func needsNewHost(before, after space.Space) bool {
	for _, one := range []*space.Space{&before, &after} {
		one.SDKVersion, one.PythonVersion, one.Warnings, one.Refused = "", "", nil, nil
	}
	return !reflect.DeepEqual(before, after)
}

// mayStandBy reports whether a second process may wait for the next restart. At level files, and with an overlay over the
// Space's folder, it would share files with the current start that each start must have for itself.
func (s *spaceRun) mayStandBy() bool {
	return s.host.settings.WatchSource && s.level != config.IsolationFiles &&
		s.settings.SourceAt(s.level, s.host.settings.IsServe()) != config.SourceOverlay
}

// runWatched runs the Space until ctx ends. After a failed start it waits for a change of the Space's files, which the author
// is about to make.
func (s *spaceRun) runWatched(ctx context.Context) error {
	for ctx.Err() == nil {
		s.supervisor.NotRunning(space.Building, "")
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil && CauseOf(err) == CauseHost {
			return err
		}
		s.reportWaiting(err)
		if err := s.supervisor.AwaitRestart(ctx); err != nil {
			break
		}
	}
	return nil
}

// reportWaiting reports a failed start. The output of an app is on the screen already, that of a build is not.
func (s *spaceRun) reportWaiting(err error) {
	stage, reason := failureOf(err)
	s.supervisor.NotRunning(stage, reason)
	s.host.log.Warn("space start failed", zap.String("space", s.space.Name), zap.Error(err))
	if start := (*worker.StartError)(nil); errors.As(err, &start) {
		s.note(start.Waiting())
	} else {
		var text strings.Builder
		Explain(&text, s.space.Name, err)
		s.host.screen.note(text.String() + "  The Space starts again when its files change.")
		s.runLog.Print(spacelog.Host, string(stage)+": "+err.Error())
	}
	s.markFailed()
}
