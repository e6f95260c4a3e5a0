// Package build makes the environment that the front matter asks for.
package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// Spec is what a Space asks of its environment.
type Spec struct {
	Gradio string // sdk_version; empty: what requirements.txt pins, else the newest
	Python string // python_version, such as 3.10 or 3.10.13; empty: any from 3.10 on
	Dir    string // the Space's folder, for pre-requirements.txt, requirements.txt and packages.txt
}

// Environment is a Python with gradio and spaces in it. Its bin folder should come first on the PATH of a
// Space, which may well call pip.
type Environment struct {
	Python        string `json:"python"`        // path of the interpreter
	PythonVersion string `json:"pythonVersion"` // such as 3.11.7, read back, like the two below
	Gradio        string `json:"gradio"`
	Spaces        string `json:"spaces"`
	Dir           string `json:"dir"` // what belongs to it: sys.prefix

	Cached   bool     `json:"-"` // it was there already
	LogPath  string   `json:"-"` // the Space's build log; empty for Config.Interpreter
	Warnings []string `json:"-"` // sentences for the author of the Space
}

// Config is what a Builder needs. Only Dir is required.
type Config struct {
	Dir      string      // where environments, logs and tools live
	Logger   *zap.Logger // nil is silent
	Progress func(Step)  // told when a step starts and ends, from the goroutine that called Build

	// Interpreter is used as it is, instead of making an environment: it must have gradio and spaces.
	Interpreter string

	// LogPath gets the full output of every tool, appended. Empty: one file per Space under Dir/logs,
	// which holds the latest build.
	LogPath string
}

// Step is one line of progress.
type Step struct {
	Index, Total int // Index counts from 1
	Text         string
	State        StepState
	Took         time.Duration // once it is not Started
}

// StepState is how far a Step is.
type StepState string

// The states of a Step.
const (
	Started  StepState = "started"
	Finished StepState = "finished"
	Failed   StepState = "failed"
)

// Builder makes Environments in one folder, which other hosts may share at the same time.
type Builder struct {
	config Config
	log    *zap.Logger
}

// New returns a Builder. Nothing is touched before Build.
func New(c Config) *Builder {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Progress == nil {
		c.Progress = func(Step) {}
	}
	return &Builder{config: c, log: c.Logger.Named("build")}
}

// Build returns the Environment for spec: one that was made before from the same inputs, or a new one.
// With rebuild an earlier one is removed first (the Hub's "factory rebuild"), so nothing may run from it.
// When ctx ends, every tool is killed with its children, and nothing half made stays.
// What goes wrong with the Space or this machine is an *Error.
func (b *Builder) Build(ctx context.Context, spec Spec, rebuild bool) (*Environment, error) {
	began := time.Now()
	j, err := b.newJob(spec)
	if err != nil {
		return nil, err
	}
	defer j.output.Close()
	env, err := j.do(ctx, rebuild)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("build the environment of %s: %w", j.space, context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	env.Warnings = append(j.warnings, packagesWarning(spec.Dir)...)
	b.log.Info("environment ready", zap.String("space", j.space), zap.String("python", env.Python),
		zap.String("gradio", env.Gradio), zap.Bool("cached", env.Cached), zap.Duration("took", time.Since(began)))
	return env, nil
}

// job is one call of Build.
type job struct {
	*Builder
	spec     Spec
	space    string // the folder's name
	dir      string // Config.Dir, absolute
	output   *output
	inputs   inputs
	python   interpreter
	home     string  // the environment's folder
	held     []*lock // handed down to the tools, see lock.go
	tool     installer
	warnings []string
}

func (b *Builder) newJob(spec Spec) (*job, error) {
	dir, err := filepath.Abs(b.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the folder for environments: %w", err)
	}
	if spec.Dir != "" {
		if spec.Dir, err = filepath.Abs(spec.Dir); err != nil {
			return nil, fmt.Errorf("find the Space's folder: %w", err)
		}
	}
	out, err := openOutput(b.config.LogPath, dir, spec.Dir)
	if err != nil {
		return nil, err
	}
	return &job{Builder: b, spec: spec, space: filepath.Base(spec.Dir), dir: dir, output: out}, nil
}

func (j *job) do(ctx context.Context, rebuild bool) (*Environment, error) {
	if j.config.Interpreter != "" {
		return j.adopt(ctx)
	}
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	release, err := j.hold(ctx, j.home+".lock")
	if err != nil {
		return nil, j.wrong("waiting for the environment", err)
	}
	defer release()
	if env, ok := readStamp(j.home); ok && !rebuild {
		env.Cached, env.LogPath = true, j.output.path
		return env, nil
	}
	return j.make(ctx)
}

// prepare finds out what is to be made, and so where.
func (j *job) prepare(ctx context.Context) (err error) {
	if j.inputs, err = readInputs(j.spec); err != nil {
		return &Error{Step: "reading the requirements", Problem: err.Error(), Hint: "make it a text file that can be read", LogPath: j.output.path, Err: err}
	}
	var newest release
	j.inputs.Constraints, newest = constraintsFor(j.inputs.Gradio)
	j.warnings = append(j.warnings, j.inputs.heldBack()...)
	if j.python, err = j.findPython(ctx, newest); err != nil {
		return err
	}
	j.inputs.Interpreter = j.python
	environments := filepath.Join(j.dir, "environments")
	j.home = filepath.Join(environments, j.inputs.key())
	if err := os.MkdirAll(environments, 0o755); err != nil {
		return j.wrong("making the folder for environments", err)
	}
	return nil
}

// make builds in the final place, since an environment cannot be moved: scripts and pyvenv.cfg hold its
// path. The stamp is written last, so that whatever has none is unfinished, and removed by the next.
func (j *job) make(ctx context.Context) (env *Environment, err error) {
	if err := os.RemoveAll(j.home); err != nil {
		return nil, j.wrong("removing the earlier environment", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(j.home) // what is left of it is removed by the next build
		}
	}()
	j.output.restart()
	if err := j.takeSteps(ctx, j.steps(ctx, &env)); err != nil {
		return nil, err
	}
	env.LogPath = j.output.path
	if err := writeStamp(j.home, env); err != nil {
		return nil, j.wrong("finishing the environment", err)
	}
	return env, nil
}
