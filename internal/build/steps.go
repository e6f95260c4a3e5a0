package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
)

// step is one action of a build, with its line of progress.
type step struct {
	text string
	file string // the file at fault if the step fails
	do   func(ctx context.Context) error
}

// steps lists the steps that create the environment. The order of installation is the Hub's (spaces-dependencies.md):
// pre-requirements.txt, the SDK, requirements.txt.
func (j *job) steps(ctx context.Context, env **Environment) []step {
	var all []step
	if uv, ok := j.findUV(ctx); ok {
		j.tool = uvInstaller(uv)
	} else {
		all = append(all, step{"installing uv " + uvVersion, "", j.installUV})
	}
	all = append(all, step{"creating an environment with Python " + j.python.Version, "", j.venv})
	if j.inputs.has(preRequirements) {
		all = append(all, step{"installing " + preRequirements, preRequirements, j.installPre})
	}
	all = append(all, step{"installing " + j.gradioText() + " and spaces", "README.md", j.installSDK})
	if j.inputs.has(requirements) {
		all = append(all, step{"installing " + requirements, requirements, j.installRequirements})
	}
	return append(all, step{"checking the environment", "", func(ctx context.Context) (err error) {
		*env, err = j.verify(ctx)
		return err
	}})
}

// runSteps runs the steps in order and reports each to Progress. The first error ends the build, explained for the
// author.
func (j *job) runSteps(ctx context.Context, all []step) error {
	for i, s := range all {
		began := time.Now()
		report := Step{Index: i + 1, Total: len(all), Text: s.text, State: Started}
		j.config.Progress(report)
		j.output.heading(s.text)
		err := s.do(ctx)
		report.State, report.Took = Finished, time.Since(began)
		if err != nil {
			report.State = Failed
		}
		j.config.Progress(report)
		j.log.Debug("step", zap.String("space", j.space), zap.String("text", s.text), zap.Duration("took", report.Took), zap.Error(err))
		if _, explained := errors.AsType[*Error](err); explained {
			return err
		}
		if err != nil {
			return j.explain(s, err)
		}
	}
	return nil
}

func (j *job) venv(ctx context.Context) error {
	if err := j.run(ctx, j.tool.venv(j.python.Path, j.home)...); err != nil {
		return err
	}
	if err := os.WriteFile(j.constraintsPath(), j.inputs.Constraints, 0o644); err != nil {
		return err
	}
	return j.copyRequirements()
}

// copyRequirements writes requirement files that need nothing of the Space's folder into the environment, from where they
// are installed. The files of the Space may change after the key was computed, and would then put other packages into an
// environment that is shared.
func (j *job) copyRequirements() error {
	if j.inputs.installed == nil {
		return nil
	}
	dir := filepath.Join(j.home, "requirements")
	for name, text := range j.inputs.installed {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	j.workDir = dir
	return os.MkdirAll(dir, 0o755)
}

func (j *job) constraintsPath() string { return filepath.Join(j.home, "constraints.txt") }

func (j *job) gradioText() string {
	if j.inputs.Gradio == "" {
		return "the newest gradio"
	}
	return "gradio " + j.inputs.Gradio
}

// sdk is what the Hub's image installs for `sdk: gradio`, according to its build logs.
func (j *job) sdk() []string {
	gradio := "gradio[oauth,mcp]"
	if j.inputs.Gradio != "" {
		gradio += "==" + j.inputs.Gradio
	}
	return []string{gradio, "spaces", "uvicorn>=0.14.0", "websockets>=10.4"}
}

func (j *job) installPre(ctx context.Context) error {
	return j.installFile(ctx, preRequirements)
}

// installSDK installs packages that the host chooses, as the host. Once packages of the Space are in the environment, its
// Python may run their code, so the installation is one of the Space's.
func (j *job) installSDK(ctx context.Context) error {
	if j.touched {
		return j.installWith(ctx, j.tool, j.sdk()...)
	}
	return j.run(ctx, j.installCommand(j.tool, j.sdk()...)...)
}

// installRequirements repeats the SDK, as the Hub does. Otherwise the installer would let requirements.txt replace
// dependencies of gradio, and the app would fail at import.
func (j *job) installRequirements(ctx context.Context) error {
	return j.installFile(ctx, requirements, j.sdk()...)
}

func (j *job) installCommand(tool installer, what ...string) []string {
	return slices.Concat(tool.install(j.home), []string{"--constraint", j.constraintsPath()}, what)
}
