package build

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Matching returns the newest complete environment in dir with the Gradio and the Python of spec, without a look at its other
// requirements. It starts and changes nothing. Its interpreter parses the Space's files as the Space's own does; to run the
// Space, use Build.
func Matching(dir string, spec Spec) (*Environment, bool) {
	stamps, err := filepath.Glob(filepath.Join(dir, "environments", "*", stampName))
	if err != nil {
		return nil, false // a folder with signs of a pattern in its name
	}
	var newest *Environment
	var at time.Time
	for _, stamp := range stamps {
		info, err := os.Stat(stamp)
		if err != nil || newest != nil && !info.ModTime().After(at) {
			continue
		}
		env, ok := readStamp(filepath.Dir(stamp))
		if ok && matches(env.Gradio, spec.Gradio) && matches(env.PythonVersion, spec.Python) {
			newest, at = env, info.ModTime()
		}
	}
	return newest, newest != nil
}

// matches reports whether a version is the wanted one, or a patch of it. An empty one is any.
func matches(version, wanted string) bool {
	return wanted == "" || strings.HasPrefix(version+".", wanted+".")
}

// Existing returns the environment that Build would return for spec without building it; false if there is none. Its errors are
// those of Build before the first step. No code of a package runs.
func (b *Builder) Existing(ctx context.Context, spec Spec) (*Environment, bool, error) {
	j, err := b.newJob(spec)
	if err != nil {
		return nil, false, err
	}
	defer j.close()
	if err := j.prepare(ctx); err != nil {
		return nil, false, err
	}
	env, ok := j.current()
	return env, ok, nil
}
