package cli

import (
	"context"
	"io"

	"spacehost/internal/build"
	"spacehost/internal/check"
	"spacehost/internal/checkcli"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/space"
)

// checkConfig gives `spacehost check` what only a system with a host has.
func checkConfig(version string) checkcli.Config {
	return checkcli.Config{ReadTiers: config.ReadTiers, Environment: builtPython, Version: version, Stages: &checkStages{}, Clones: clones, Pins: pinsOf, StageOf: hubStage}
}

// pinsOf reads the packages of the environment that a start of the Space would use, nil if it has not been built.
func pinsOf(ctx context.Context, state, dir, gradio string) (*check.Pins, error) {
	state, err := config.StateFolder(state)
	if err != nil {
		return nil, err
	}
	found, err := config.SpaceSettings{Dir: dir, Gradio: gradio}.Open()
	if err != nil {
		return nil, err
	}
	builder := build.New(build.Config{Dir: host.EnvironmentsIn(state), Log: io.Discard})
	env, ok, err := builder.Existing(ctx, build.Spec{Gradio: found.SDKVersion, Python: found.PythonVersion, Dir: found.Dir, Space: found.Name})
	if err != nil || !ok {
		return nil, err
	}
	return check.PinsOf(env.Python, env.PythonVersion)
}

// hubStage names the stage of a failed start; "" for an error of the host.
func hubStage(err error) string {
	switch host.CauseOf(err) {
	case host.CauseConfig:
		return string(space.StageOf(err))
	case host.CauseBuild:
		return string(space.BuildFailed)
	case host.CauseRuntime:
		return string(space.RuntimeFailed)
	}
	return ""
}

// builtPython returns the interpreter of an environment that has been built for the Space; "" if there is none.
func builtPython(state, dir string) string {
	state, err := config.StateFolder(state)
	if err != nil {
		return ""
	}
	found, err := space.CheckDir(dir)
	if err != nil || found.Space == nil {
		return ""
	}
	env, ok := build.Matching(host.EnvironmentsIn(state), build.Spec{Gradio: found.Space.SDKVersion, Python: found.Space.PythonVersion})
	if !ok {
		return ""
	}
	return env.Python
}
