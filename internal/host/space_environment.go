package host

import (
	"context"
	"fmt"

	"spacehost/internal/build"
	"spacehost/internal/space"
	"spacehost/internal/spacelog"
)

// builder returns the Builder of the Space. progress receives the steps of its builds.
func (s *spaceRun) builder(progress func(build.Step)) *build.Builder {
	h := s.host
	return build.New(build.Config{
		Dir: EnvironmentsIn(h.kept), Interpreter: s.settings().Python, Logger: h.log.Named("build"), Progress: progress,
		LogPath: spacelog.Path(h.kept, s.space().Name, spacelog.Build), Log: s.buildLog, Confine: s.confineBuild(), UV: PackagedUV(),
		Reference: s.environmentReference(),
	})
}

// environmentReference is the file that refers to the environment of the Space, so that Prune keeps it while no host runs.
func (s *spaceRun) environmentReference() string {
	if s.host.observe != nil {
		return "" // the state folder of a check is removed
	}
	return referenceIn(s.host.state.dir, s.space().Name)
}

// specOf describes the environment that a Space's folder asks for. --rebuild excludes environments older than this host.
func (s *spaceRun) specOf(found *space.Space) build.Spec {
	spec := build.Spec{Gradio: found.SDKVersion, Python: found.PythonVersion, Dir: found.Dir, Space: found.Name}
	if s.host.settings().Rebuild {
		spec.BuiltAfter = s.host.opened
	}
	return spec
}

// build builds the environment of the next start. The former start has ended.
func (s *spaceRun) build(ctx context.Context) error {
	h := s.host
	s.env().Release()
	env, err := s.builder(h.buildProgress()).Build(ctx, s.specOf(s.space()))
	if err != nil {
		return err
	}
	s.environment.Store(env)
	for _, warning := range env.Warnings {
		h.screen.note("warning: " + warning)
	}
	h.screen.note(fmt.Sprintf("Environment: Python %s, gradio %s, spaces %s", env.PythonVersion, env.Gradio, env.Spaces))
	if s.space().SDKVersion == "" {
		s.note(fmt.Sprintf("README.md has no sdk_version: gradio %s is used. Write sdk_version: %s, or a later build may choose another release.", env.Gradio, env.Gradio))
	}
	return nil
}

// env returns the environment of the last build, nil before the first one.
func (s *spaceRun) env() *build.Environment { return s.environment.Load() }

// versions returns the versions of gradio and spaces in the environment of the last start, wherever that ran.
func (s *spaceRun) versions() (gradio, spaces string) {
	if s.isOnNode() {
		return s.onNodes.versions()
	}
	env := s.env()
	return env.Gradio, env.Spaces
}

// sharing lists the other Spaces that run from the same environment.
func (s *spaceRun) sharing() (names []string) {
	own := s.env()
	for _, other := range s.host.all() {
		if env := other.env(); other != s && own != nil && env != nil && env.Dir == own.Dir {
			names = append(names, other.space().Name)
		}
	}
	return names
}
