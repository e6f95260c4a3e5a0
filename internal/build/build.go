// Package build creates the Python environment that a Space's front matter and requirements ask for.
//
// # Terms
//
//   - Environment: a Python interpreter with gradio, spaces and the Space's requirements.
//   - Inputs: everything that decides what an environment contains. Their hash is the environment's key, which names
//     its folder. Spaces with the same key share the environment.
//   - Generation: one build of a key. A finished generation never changes. A rebuild makes the next one beside it.
//   - Plain: a requirement file with names, versions and markers only. A Space with any other line shares its environment
//     with no other Space.
//   - Stamp: the file that marks an environment as complete. It is written last.
//   - Confinement: what runs the tools that may execute code of a Space, apart from the machine. Its implementation belongs
//     to the caller.
//   - Constraints: upper bounds that older Gradio releases need to be installable today.
//
// # Types
//
// Builder creates environments in one folder, which several hosts may share. The commands `spacehost run` and
// `spacehost serve` call Builder.Build for a Spec, then Builder.Preload for its preload_from_hub. A job is one of these
// calls; it runs steps, each of which runs
// tools: uv, or pip where uv cannot be installed.
//
// # Code of a Space
//
// A setup.py runs when its package is resolved or built. A .pth file of a wheel runs whenever the environment's Python
// starts. With Config.Confine, each tool that may run such code runs in a Confinement (confine.go). Other tools run as the
// host: those that install gradio and spaces into a new environment, and those that install only wheels. They alone write
// to the cache that environments share. After the first package of the Space, no tool runs the environment's Python as the
// host.
//
// # Failures
//
// A failed build removes what it has created; a generation without a stamp is removed by the next build of its key. A file
// lock per key serializes builds, and outlives a killed host as long as one of its tools runs. A second lock marks a generation
// that is in use (use.go); the kernel releases it when the process ends. Confined tools of a
// build have a common time limit. Every failure
// of the Space or the machine is an *Error: explain turns the output of the tool into one sentence with a next step.
package build

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/removal"
)

// Spec describes the environment of a Space.
type Spec struct {
	Gradio string // sdk_version; empty: the version that requirements.txt pins, else the newest
	Python string // python_version, such as 3.10 or 3.10.13; empty: any from 3.10 on
	Dir    string // the Space's folder, for pre-requirements.txt, requirements.txt and packages.txt
	Space  string // the Space's name; it distinguishes environments that are not shared

	// BuiltAfter excludes environments whose build ended earlier (the Hub's "factory rebuild"). The zero time excludes none.
	BuiltAfter time.Time
}

// Environment is a Python with gradio and spaces. Its bin folder should come first on the PATH of a Space, which may
// call pip.
type Environment struct {
	Python        string `json:"python"`        // path of the interpreter
	PythonVersion string `json:"pythonVersion"` // such as 3.11.7; read from the interpreter, like the next two
	Gradio        string `json:"gradio"`
	Spaces        string `json:"spaces"`
	Dir           string `json:"dir"` // the environment's folder: sys.prefix
	// Built is the end of the build; the zero time: not known.
	Built time.Time `json:"built,omitzero"`

	Cached   bool     `json:"-"` // it existed before this call
	LogPath  string   `json:"-"` // the Space's build log; empty for Config.Interpreter
	Warnings []string `json:"-"` // sentences for the author of the Space

	base string // the interpreter from which a Builder has made it; "": it is Config.Interpreter
	use  *use   // nil: it is Config.Interpreter, or Existing has found it
}

// Config configures a Builder. Only Dir is required.
type Config struct {
	Dir      string      // folder of environments, logs and tools
	Logger   *zap.Logger // nil is silent
	Progress func(Step)  // called when a step starts and ends, from the goroutine of Build

	// Interpreter is used unchanged, instead of creating an environment. It must have gradio and spaces.
	Interpreter string

	// LogPath is the file to which the full output of every tool is appended. Empty: one file per Space under
	// Dir/logs, which holds the latest build.
	LogPath string
	// Log receives that output instead of the file, of which LogPath is then only the name.
	Log io.Writer

	// Reference is a file of the caller that refers to the environment of the latest Build. Prune keeps an environment as long
	// as a file refers to it. "": none.
	Reference string

	// UV is the path of a uv that is used if there is none on PATH; "": none
	UV string

	// Confine opens the Confinement of a job; nil: all tools run as the host.
	Confine func() Confinement
	// TimeLimit bounds the time that code of a Space may take in one build, if there is a Confinement; 0: 30 minutes.
	TimeLimit time.Duration
}

// Step is one line of progress.
type Step struct {
	Index, Total int // Index counts from 1
	Text         string
	State        StepState
	Took         time.Duration // set unless State is Started
}

// StepState is the state of a Step.
type StepState string

// The states of a Step.
const (
	Started  StepState = "started"
	Finished StepState = "finished"
	Failed   StepState = "failed"
)

// Builder creates Environments in one folder, which other hosts may use at the same time.
type Builder struct {
	config Config
	log    *zap.Logger
}

// New returns a Builder. It does not access the disk before Build.
func New(c Config) *Builder {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Progress == nil {
		c.Progress = func(Step) {}
	}
	return &Builder{config: c, log: c.Logger.Named("build")}
}

// Build returns the Environment for spec: an existing one with the same inputs, or a new one. An existing one that
// Spec.BuiltAfter excludes stays as it is, and a new one is made beside it. Concurrent calls with the same inputs share one
// build, also among hosts. The Environment is in use until its Release. When ctx ends, every tool is killed with its children,
// and no partial environment remains. A problem of the Space or of this machine is an *Error.
func (b *Builder) Build(ctx context.Context, spec Spec) (*Environment, error) {
	began := time.Now()
	j, err := b.newJob(spec)
	if err != nil {
		return nil, err
	}
	defer j.close()
	env, err := j.do(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("build the environment of %s: %w", j.space, context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	env.Warnings = append(j.warnings, packagesWarning(spec.Dir)...)
	if untested := untestedWarning(env); untested != "" {
		env.Warnings = append(env.Warnings, untested)
	}
	b.log.Info("environment ready", zap.String("space", j.space), zap.String("python", env.Python),
		zap.String("gradio", env.Gradio), zap.Bool("cached", env.Cached), zap.Duration("took", time.Since(began)))
	return env, nil
}

// job is one call of Build.
type job struct {
	*Builder
	spec     Spec
	space    string // its name, or that of the folder
	dir      string // Config.Dir, absolute
	output   *output
	inputs   inputs
	python   interpreter
	key      string  // path of the first generation, and the beginning of the paths of all others
	home     string  // the environment's folder: of the generation that is used or made
	workDir  string  // of the tools: the base of relative paths in requirement files; empty: spec.Dir
	locks    []*lock // inherited by the tools, see lock.go
	tool     installer
	warnings []string

	variables []string // for the tools, in addition to toolEnv

	confinement  Confinement // nil: none
	confinedTime time.Duration
	touched      bool     // packages of the Space may be in the environment, whose Python then runs their code
	folders      []string // from which the interpreter reads; nil: not known yet
}

func (b *Builder) newJob(spec Spec) (*job, error) {
	dir, err := filepath.Abs(b.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the folder of environments: %w", err)
	}
	if spec.Dir != "" {
		if spec.Dir, err = filepath.Abs(spec.Dir); err != nil {
			return nil, fmt.Errorf("resolve the Space's folder: %w", err)
		}
	}
	out, err := openOutput(b.config, dir, spec.Dir)
	if err != nil {
		return nil, err
	}
	j := &job{Builder: b, spec: spec, space: cmp.Or(spec.Space, filepath.Base(spec.Dir)), dir: dir, output: out}
	if b.config.Confine != nil {
		j.confinement = b.config.Confine()
	}
	return j, nil
}

func (j *job) do(ctx context.Context) (*Environment, error) {
	if j.config.Interpreter != "" {
		env, err := j.useInterpreter(ctx)
		if err == nil {
			err = j.refer("")
		}
		return env, err
	}
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	release, err := j.acquireLock(ctx, j.key+lockSuffix)
	if err != nil {
		return nil, j.machineError("waiting for the environment", err)
	}
	defer release()
	env, ok := j.current()
	if ok {
		env.Cached, env.LogPath, env.base = true, j.output.path, j.python.Path
	} else if env, err = j.create(ctx); err != nil {
		return nil, err
	}
	if env.use, err = openUse(env.Dir); err == nil {
		err = j.refer(env.Dir)
	}
	if err != nil {
		env.Release()
		return nil, j.machineError("using the environment", err)
	}
	j.removeReplaced(env.Dir)
	return env, nil
}

// prepare determines the inputs of the environment, and so its key.
func (j *job) prepare(ctx context.Context) (err error) {
	if j.inputs, err = readInputs(j.spec); err != nil {
		return &Error{Step: "reading the requirements", Problem: err.Error(), Hint: "replace it with a readable text file", LogPath: j.output.path, Err: err}
	}
	var newest release
	j.inputs.Constraints, newest = constraintsFor(j.inputs.Gradio)
	j.warnings = append(j.warnings, j.inputs.constraintWarnings()...)
	if j.python, err = j.findPython(ctx, newest); err != nil {
		return err
	}
	j.inputs.Interpreter = j.python
	environments := filepath.Join(j.dir, "environments")
	j.key = filepath.Join(environments, j.inputs.key())
	if err := os.MkdirAll(environments, 0o755); err != nil {
		return j.machineError("creating the folder of environments", err)
	}
	return nil
}

// create builds a generation in its final place, since an environment cannot be moved: scripts and pyvenv.cfg contain its
// path. The stamp, which is written last, makes it the current one.
func (j *job) create(ctx context.Context) (env *Environment, err error) {
	if j.home, err = j.newGeneration(); err != nil {
		return nil, j.machineError("removing an unfinished environment", err)
	}
	defer func() {
		if err != nil {
			_ = removal.Tree(j.home) // the next build removes what remains
		}
	}()
	j.output.restart()
	if err := j.runSteps(ctx, j.steps(ctx, &env)); err != nil {
		return nil, err
	}
	env.LogPath, env.base, env.Built = j.output.path, j.python.Path, time.Now()
	if err := writeStamp(j.home, env); err != nil {
		return nil, j.machineError("finishing the environment", err)
	}
	return env, nil
}
