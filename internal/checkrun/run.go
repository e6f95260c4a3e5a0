// Package checkrun performs the stages build, run and call of `spacehost check`: it starts a Space once on simulated GPUs,
// and calls its endpoints.
//
// # Terms
//
//   - Observation: what the host or the runner has seen (package worker). It names a rule of package check.
//   - CallList: how each endpoint can be called, made by the runner (observe_calls.py).
//
// # Types
//
// Run performs the stages with Options, and adds its findings to a check.Report. It starts a host by
// host.RunObserved. observations collects what comes in during the start; findings turns it into Facts of package check.
// caller makes the calls of a CallList, as a browser would: one session for each.
//
// # Failure handling
//
// Run returns the error of the start, so that the exit code is that of `spacehost run`. The findings are in the Report all the
// same. A call that fails or takes too long becomes a finding or an entry of NotLookedAt. When Run returns, no process of the
// Space is left.
package checkrun

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"spacehost/gpu"
	"spacehost/internal/build"
	"spacehost/internal/check"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/worker"
)

// Options are the settings of one check.
type Options struct {
	Dir       string
	State     string               // the state folder; its environments are used, and its lock is not
	Python    string               // an interpreter with gradio and spaces; "": build the environment
	Unmet     []string             // what the Space asks for and Python does not have
	Hardware  string               // a word of --hardware; "": auto
	Preset    string               // a word of --quota; "": config.DefaultPreset
	Limits    check.DurationLimits // of durations; the zero value: durations are not compared
	Variables map[string]string
	Secrets   map[string]string
	Isolation config.IsolationSettings
	// Gradio is a version instead of sdk_version; "": that one.
	Gradio string
	// CPU checks the Space as on CPU hardware: without ZeroGPU.
	CPU bool

	// Call makes calls after the start.
	Call bool
	// CallTimeout limits one call, and CallsTimeout all of them together; 0: a minute, and five minutes.
	CallTimeout, CallsTimeout time.Duration

	// Progress receives one line per step; nil: none.
	Progress func(text string)
}

// The limits of calls without settings.
const (
	DefaultCallTimeout  = time.Minute
	DefaultCallsTimeout = 5 * time.Minute
)

// simulatedGPUs is the number of GPUs: several, so that a call that does not end in time keeps no GPU from the next ones.
const simulatedGPUs = 8

// Run builds the environment of a Space, starts the Space once on simulated GPUs, makes its calls if o.Call is set, and adds
// the findings to report. The error is that of the build, the start or the host.
func Run(ctx context.Context, o Options, report *check.Report) error {
	settings := o.settings()
	seen := newObservations()
	seen.unmet = o.Unmet
	observe := host.Observe{Fact: seen.add, Progress: seen.progress(o.Progress)}
	if o.Call {
		observe.Calls = seen.setCalls
	}
	began := time.Now()
	err := host.RunObserved(ctx, settings, observe, func(ctx context.Context, url string) error {
		seen.running(time.Since(began))
		if o.Call {
			seen.call(ctx, o, url)
		}
		return nil
	})
	if add := seen.addTo(report, o.Limits, err, o.Call); add != nil {
		return add
	}
	if start := startError(err); start != nil {
		seen.nameCause(start, report)
	}
	return err
}

// nameCause replaces the next step of a start that failed for want of something on this machine.
func (o *observations) nameCause(start *worker.StartError, report *check.Report) {
	for _, f := range report.Findings {
		if f.ID == "A803" || f.ID == "B604" || f.ID == "B601" && o.misses() {
			start.Next = fmt.Sprintf("%s %s: %s.", f.Place(), f.ID, f.Fix)
			return
		}
	}
}

// settings returns those of a host for this Space alone. Its visitor is never refused: o.Limits are computed.
func (o *Options) settings() config.Settings {
	orDefault(&o.Hardware, gpu.AutoHardware)
	orDefault(&o.Preset, config.DefaultPreset)
	if o.CallTimeout == 0 {
		o.CallTimeout = DefaultCallTimeout
	}
	if o.CallsTimeout == 0 {
		o.CallsTimeout = DefaultCallsTimeout
	}
	gpus := fmt.Sprintf("mock:%d%s", simulatedGPUs, strings.TrimPrefix(config.SimulatedGPU, "1"))
	if o.CPU {
		gpus = "none"
	}
	return config.Settings{
		State: o.State, Console: config.Setting{Value: "127.0.0.1:0"}, GPUs: config.Setting{Value: gpus, Source: "--hardware"},
		Hardware: config.Setting{Value: o.Hardware, Source: "--hardware"}, Preset: config.Setting{Value: o.Preset, Source: "--quota"},
		LocalTier: config.Setting{Value: "unlimited", Source: "--tier"}, AdvisoryRuns: true, QueueTimeout: time.Minute, WarmFor: time.Minute, Keep: config.DefaultKeep,
		IdentityMode: "direct",
		Spaces: []config.SpaceSettings{{
			Dir: o.Dir, Addr: config.Setting{Value: "127.0.0.1:0"}, Visibility: config.Public, Python: o.Python, Gradio: o.Gradio, Variables: o.Variables, Secrets: o.Secrets,
			IsolationSettings: o.Isolation,
		}},
	}
}

func orDefault(word *string, value string) {
	if *word == "" {
		*word = value
	}
}

// buildFact returns the Fact of a failed build; ok is false for a failure of the machine.
func buildFact(err error) (fact check.Fact, ok bool) {
	built, ok := errors.AsType[*build.Error](err)
	if !ok || built.Line == 0 {
		return check.Fact{}, false
	}
	fact = check.Fact{Rule: "A207", File: built.File, Line: built.Line, Values: map[string]string{"problem": strings.TrimPrefix(built.Problem, built.File+": "), "fix": built.Hint}}
	if built.Missing.Name != "" {
		fact.Rule = "A204"
		fact.Values = map[string]string{"requirement": built.Requirement, "missing": missing(built.Missing), "fix": built.Hint}
	}
	return fact, true
}

func missing(m build.Missing) string {
	switch {
	case m.Module:
		return "the module " + m.Name
	case m.Package != "":
		return fmt.Sprintf("%s, of the Debian package %s,", m.Name, m.Package)
	}
	return m.Name
}

// startError returns the error of a start of the Space, nil for another.
func startError(err error) *worker.StartError {
	start, _ := errors.AsType[*worker.StartError](err)
	return start
}
