package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/space"
)

// bench is one run of the program.
type bench struct {
	options
	stderr   io.Writer
	root     string // of the module
	app      string
	scratch  string // removed at the end
	env      *build.Environment
	chromium string   // "" if there is none
	columns  []string // of --isolation and --agent: levels, or hosts, that this machine offers
	report   report
}

// report is what --json writes.
type report struct {
	Machine  machine  `json:"machine"`
	Versions versions `json:"versions"`
	Short    bool     `json:"short"`
	Rounds   []record `json:"rounds"`
}

// record is the result of one step on one target in one round.
type record struct {
	Round  int     `json:"round"` // from 1
	Target string  `json:"side"`
	Step   string  `json:"step"`
	Values values  `json:"values"`
	Error  string  `json:"error,omitempty"` // dropped or wrong answers, or a failed measurement
	Took   float64 `json:"took"`            // seconds
}

// environments returns the environment folder that the tests use.
func environments() string {
	if dir := os.Getenv("SPACEHOST_ENVIRONMENTS"); dir != "" {
		return dir
	}
	cache := os.Getenv("SPACEHOST_TEST_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = os.TempDir()
		}
		cache = filepath.Join(base, "spacehost-test")
	}
	return filepath.Join(cache, "environments")
}

// run measures and prints the table. After an error the report contains what was measured before.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (report, error) {
	b := &bench{options: o, stderr: stderr, chromium: chromium()}
	measure, print := b.interleave, b.print
	if o.isolation {
		measure, print = b.compareLevels, b.printLevels
	}
	if o.first {
		measure, print = b.compareFirst, b.printFirst
	}
	if o.agent {
		measure, print = b.compareAgents, b.printAgents
	}
	if o.nodes {
		measure, print = b.measureNodes, b.printNodes
	}
	err := b.prepare(ctx)
	if err == nil {
		err = measure(ctx)
	}
	if b.scratch != "" {
		os.RemoveAll(b.scratch)
	}
	if len(b.report.Rounds) > 0 { // also after Ctrl-C
		print(stdout)
		err = errors.Join(err, b.writeJSON())
	}
	return b.report, err
}

func (b *bench) printf(format string, args ...any) { fmt.Fprintf(b.stderr, format+"\n", args...) }

// prepare creates everything that both targets need.
func (b *bench) prepare(ctx context.Context) (err error) {
	raiseOpenFiles()
	if b.scratch, err = os.MkdirTemp("", "spacehost-bench-"); err != nil {
		return err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module (run this from inside the repository): %w", err)
	}
	b.root = strings.TrimSpace(string(root))
	b.app = filepath.Join(b.root, "bench", "app")
	if !b.nodes {
		if err := b.buildEnvironment(ctx); err != nil {
			return err
		}
	}
	if err := b.buildSpacehost(ctx); err != nil {
		return err
	}
	if b.chromium == "" && !b.isolation && !b.first && !b.agent && !b.nodes {
		b.printf("SKIPPED: Chromium is not installed; the first page load is not measured")
	}
	b.report.Short = b.short
	b.report.Machine = thisMachine(b.scratch)
	b.report.Versions = b.versions(ctx)
	return nil
}

// buildEnvironment uses the product's own builder. Both targets run in this environment.
func (b *bench) buildEnvironment(ctx context.Context) error {
	s, err := space.Open(b.app)
	if err != nil {
		return err
	}
	builder := build.New(build.Config{Dir: b.environments, Progress: func(step build.Step) {
		if step.State == build.Started {
			b.printf("environment: %s ...", step.Text)
		}
	}})
	b.env, err = builder.Build(ctx, build.Spec{Gradio: s.SDKVersion, Python: s.PythonVersion, Dir: s.Dir})
	return err
}

func (b *bench) buildSpacehost(ctx context.Context) (err error) {
	if b.first { // the wheel has a binary
		b.spacehost = filepath.Base(b.wheel)
		return nil
	}
	if b.spacehost != "" {
		b.spacehost, err = filepath.Abs(b.spacehost)
		return err
	}
	b.printf("building spacehost ...")
	b.spacehost = filepath.Join(b.scratch, "spacehost")
	c := exec.CommandContext(ctx, "go", "build", "-o", b.spacehost, "./cmd/spacehost")
	c.Dir = b.root
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build spacehost: %w\n%s", err, out)
	}
	return nil
}

// interleave measures the targets in turn; the first target alternates.
func (b *bench) interleave(ctx context.Context) error {
	for round := 1; round <= b.options.rounds; round++ {
		targets := []string{stock, ours}
		if round%2 == 0 {
			slices.Reverse(targets)
		}
		for _, name := range targets {
			if err := b.measureShared(ctx, round, name); err != nil {
				return err
			}
		}
		b.measureBounds(ctx, round)
		if err := b.measureAlone(ctx, round, targets); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// measureShared measures all steps that share one process.
func (b *bench) measureShared(ctx context.Context, round int, name string) error {
	var steps []step
	for _, s := range allSteps(b.short) {
		if !s.alone && b.wants(s) && (!s.once || round == 1) {
			steps = append(steps, s)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	return b.measure(ctx, round, name, steps)
}

// measureAlone measures the steps that need their own process.
func (b *bench) measureAlone(ctx context.Context, round int, targets []string) error {
	for _, s := range allSteps(b.short) {
		for _, name := range targets {
			if !s.alone || !b.wants(s) || round > 1 {
				continue
			}
			if err := b.measure(ctx, round, name, []step{s}); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure starts a target, warms it up, measures the steps, and stops the target.
func (b *bench) measure(ctx context.Context, round int, name string, steps []step) error {
	s, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer s.stop()
	for range 20 {
		if _, _, err := s.client.call(ctx, newHash(), "noop", `["warm"]`, `"warm"`); err != nil {
			return fmt.Errorf("warm up %s: %w\n%s", name, err, s.lastOutput())
		}
		s.events++
	}
	for _, step := range steps {
		began := time.Now()
		v, err := step.measure(ctx, b, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.record(round, name, step.name, v, err, began)
	}
	return nil
}

// record stores and prints one result.
func (b *bench) record(round int, target, step string, v values, err error, began time.Time) {
	r := record{Round: round, Target: target, Step: step, Values: v, Took: time.Since(began).Seconds()}
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(v)) {
		texts = append(texts, fmt.Sprintf("%s %.4g", key, v[key]))
	}
	if err != nil {
		r.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		texts = append(texts, "WRONG: "+r.Error)
	}
	b.report.Rounds = append(b.report.Rounds, r)
	b.printf("[%d/%d] %-14s %-14s %s", round, b.options.rounds, target, step, strings.Join(texts, ", "))
}

// writeJSON writes the file of --json.
func (b *bench) writeJSON() error {
	if b.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.report, "", " ")
	if err == nil {
		err = os.WriteFile(b.json, append(data, '\n'), 0o644)
	}
	if err != nil {
		return errors.Join(errors.New("--json: the rounds were measured but not written"), err)
	}
	return nil
}
