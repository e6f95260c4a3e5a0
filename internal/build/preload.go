package build

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Preload is one download of preload_from_hub.
type Preload struct {
	Model  string   // of the Hub: owner/name
	Files  []string // empty: the whole repository
	Commit string   // empty: main
}

func (p Preload) text() string {
	text := "downloading " + p.Model
	if len(p.Files) > 0 {
		text += ": " + strings.Join(p.Files, ", ")
	}
	if p.Commit != "" {
		text += " at " + p.Commit[:min(8, len(p.Commit))]
	}
	return text
}

// preloadScript downloads with the huggingface_hub of the environment. Its exit status names the kind of failure.
//
//go:embed preload.py
var preloadScript string

// preloadProblems are the exit statuses of preload.py.
var preloadProblems = map[int]struct{ problem, hint string }{
	3: {"repository %s does not exist, or is private or gated", "name a public model repository, as the Hub's build needs too"},
	4: {"repository %s has no such file", "correct the file names"},
	5: {"repository %s has no such commit", "correct the commit, or remove it"},
	6: {"the Hub cannot be reached to download %s", "check the network, and HTTPS_PROXY and HF_ENDPOINT where they are set"},
}

// Preload downloads into the Hub's cache of the Space, as the Hub does in its build: without a token, so that private
// repositories fail here too. variables are those that name the cache and the Hub (HF_HOME, HF_HUB_CACHE, HF_ENDPOINT), as
// NAME=VALUE. Each download is a Step. What is complete in the cache is not downloaded again; while the Hub cannot be
// reached, that is enough. The first failure ends it as an *Error.
func (b *Builder) Preload(ctx context.Context, spec Spec, env *Environment, downloads []Preload, variables []string) error {
	j, err := b.newJob(spec)
	if err != nil {
		return err
	}
	defer j.close()
	j.variables = append(variables, "HF_HUB_DISABLE_PROGRESS_BARS=1", "HF_HUB_DISABLE_TELEMETRY=1")
	if j.folders, err = env.Folders(ctx); err != nil {
		return err
	}
	var all []step
	for _, p := range downloads {
		argv := append([]string{env.Python, "-I", "-c", preloadScript, p.Model, p.Commit}, p.Files...)
		all = append(all, step{text: p.text(), do: func(ctx context.Context) error {
			_, err := j.runTo(ctx, preload, io.Discard, argv...)
			return explainPreload(p, j.output.path, err)
		}})
	}
	err = j.runSteps(ctx, all)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("preload for %s: %w", j.space, context.Cause(ctx))
	}
	return err
}

// explainPreload turns the failure of preload.py into an *Error.
func explainPreload(p Preload, log string, err error) error {
	tool, failed := errors.AsType[*toolError](err)
	if !failed {
		return err
	}
	e := &Error{Step: p.text(), LogPath: log, Tail: lastLines(tool.output), Err: err}
	what := p.Model
	if len(p.Files) > 0 {
		what += " (" + strings.Join(p.Files, ", ") + ")"
	}
	exit, _ := errors.AsType[*exec.ExitError](tool.err)
	known, ok := preloadProblems[exitCode(exit)]
	if !ok {
		known.problem, known.hint = "%s cannot be downloaded", "read the log for the reason"
	}
	e.Problem, e.Hint = "README.md: preload_from_hub: "+fmt.Sprintf(known.problem, what), known.hint
	return e
}

func exitCode(err *exec.ExitError) int {
	if err == nil {
		return 0
	}
	return err.ExitCode()
}
