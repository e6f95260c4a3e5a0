package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"spacehost/internal/check"
	"spacehost/internal/checkcli"
	"spacehost/internal/checkrun"
	"spacehost/internal/config"
	"spacehost/internal/printable"
	"spacehost/internal/space"
)

// checkStages performs --run and --call of `spacehost check` with the flags of `run` that concern a single start.
type checkStages struct {
	run                       options
	callTimeout, callsTimeout time.Duration
}

// Duplicate lets the start have no Secrets (--as-duplicate), and returns the names of its Variables.
func (s *checkStages) Duplicate() (variables []string, err error) {
	if len(s.run.secrets) > 0 || len(s.run.envFiles) > 0 {
		return nil, errors.New("--as-duplicate: a duplicate gets no Secrets; leave --secret and --env-file out, or use --variable")
	}
	return slices.Collect(maps.Keys(pairs(s.run.variables))), nil
}

var _ checkcli.Stages = (*checkStages)(nil)

// Flags implements checkcli.Stages.
func (s *checkStages) Flags(f *pflag.FlagSet) {
	f.DurationVar(&s.callTimeout, "call-timeout", checkrun.DefaultCallTimeout, "maximum time of one call")
	f.DurationVar(&s.callsTimeout, "calls-timeout", checkrun.DefaultCallsTimeout, "maximum time of all calls together")
	f.StringArrayVar(&s.run.variables, "variable", nil, "Space Variable for the start, NAME=VALUE; may be repeated")
	f.StringArrayVar(&s.run.secrets, "secret", nil, "Space Secret for the start, NAME=VALUE, or NAME to take it from the environment; may be repeated")
	f.StringArrayVar(&s.run.envFiles, "env-file", nil, "dotenv file whose values become Secrets of the start, such as .env; --secret has precedence; may be repeated")
	f.StringVar(&s.run.isolationFlags.Isolation, "isolation", "auto", "level of isolation of the start from this machine: none, files, namespaces, or auto for the highest that it offers (docs/isolation.md)")
	f.StringVar(&s.run.isolationFlags.Egress, "egress", "hub", "public addresses that the start reaches: hub (ports 80, 443, 8080), none, or host names and :ports")
}

// Check implements checkcli.Stages.
func (s *checkStages) Check() error {
	if s.callTimeout <= 0 {
		return fmt.Errorf("--call-timeout %s is not above 0", s.callTimeout)
	}
	if s.callsTimeout <= 0 {
		return fmt.Errorf("--calls-timeout %s is not above 0", s.callsTimeout)
	}
	return errors.Join(s.run.checkVariables(), s.run.readEnvFiles())
}

// Run implements checkcli.Stages.
func (s *checkStages) Run(ctx context.Context, dir string, o checkcli.StageOptions, report *check.Report) error {
	s.run.state = o.State
	for _, step := range []func() error{s.run.findState, s.run.checkIsolation} {
		if err := step(); err != nil {
			return err
		}
	}
	if note := config.EnvFileNote(dir); note != "" && len(s.run.envFiles) == 0 {
		fmt.Fprintln(o.Progress, "note:", printable.Line(note))
	}
	variables, secrets := s.run.environment()
	return checkrun.Run(ctx, checkrun.Options{
		Dir: dir, State: s.run.state, Python: o.Python, Unmet: unmet(dir, o), Hardware: o.Hardware, Preset: o.Quota, Limits: o.Limits,
		Variables: variables, Secrets: secrets, Gradio: o.Gradio, CPU: o.CPU, Isolation: s.run.isolation,
		Call: o.Call, CallTimeout: s.callTimeout, CallsTimeout: s.callsTimeout,
		Progress: func(text string) { fmt.Fprintln(o.Progress, printable.Line(text)) }, // a closed terminal cannot be reported anywhere
	}, report)
}

// unmet returns what the Space asks for and the interpreter of --python does not have; nil without the flag.
func unmet(dir string, o checkcli.StageOptions) []string {
	if o.Python == "" {
		return nil
	}
	pins, err := check.PinsOf(o.Python, "")
	if err != nil { // no environment: its packages are elsewhere
		return []string{"all of them, as far as can be seen"}
	}
	return space.Unmet(dir, o.Gradio, pins.Packages)
}
