package cli

import (
	"errors"
	"net/http"

	"spacehost/internal/checkcli"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// Exit codes, by their names in package usage.
const (
	ExitHost     = usage.ExitHost
	ExitUsage    = usage.ExitUsage
	ExitConfig   = usage.ExitConfig
	ExitBuild    = usage.ExitBuild
	ExitRuntime  = usage.ExitRuntime
	ExitServe    = usage.ExitServe
	ExitFindings = usage.ExitFindings
)

func exitCode(err error) int {
	var wrongUsage *usage.Error
	var file *config.FileError
	var findings *checkcli.FindingsError
	var refused *refusedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrongUsage):
		return ExitUsage
	case errors.As(err, &file), errors.As(err, &refused) && refused.status == http.StatusUnprocessableEntity, errors.As(err, new(*previewError)):
		return ExitServe
	case errors.As(err, &findings):
		return findings.Code
	}
	switch host.CauseOf(err) {
	case host.CauseConfig:
		return ExitConfig
	case host.CauseBuild:
		return ExitBuild
	case host.CauseRuntime:
		return ExitRuntime
	}
	return ExitHost
}
