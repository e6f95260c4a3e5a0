package cli

import (
	"spacehost/internal/build"
	"spacehost/internal/checkcli"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/space"
)

// checkConfig gives `spacehost check` what only a system with a host has.
func checkConfig(version string) checkcli.Config {
	return checkcli.Config{ReadTiers: config.ReadTiers, Environment: builtPython, Version: version, Stages: &checkStages{}}
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
