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
	chromium string // "" if there is none
	report   report
}

// report is what --json writes.
type report struct {
	Machine  machine  `json:"machine"`
	Versions versions `json:"versions"`
	Short    bool     `json:"short"`
	Rounds   []record `json:"rounds"`
}

// record is what one step measured on one side in one round.
type record struct {
	Round  int     `json:"round"` // from 1
	Side   string  `json:"side"`
	Step   string  `json:"step"`
	Values values  `json:"values"`
	Error  string  `json:"error,omitempty"` // what was dropped, wrong, or could not be measured
	Took   float64 `json:"took"`            // seconds
}

// environments is the folder that the tests keep theirs in.
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

// run measures and prints the table. The report is as far as it came.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (report, error) {
	b := &bench{options: o, stderr: stderr, chromium: chromium()}
	err := b.prepare(ctx)
	if err == nil {
		err = b.interleave(ctx)
	}
	if b.scratch != "" {
		os.RemoveAll(b.scratch)
	}
	if len(b.report.Rounds) > 0 { // also at Ctrl-C, as far as it came
		b.print(stdout)
		err = errors.Join(err, b.keep())
	}
	return b.report, err
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.stderr, format+"\n", args...) }

// prepare makes everything that both sides need.
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
	if err := b.buildEnvironment(ctx); err != nil {
		return err
	}
	if err := b.buildSpacehost(ctx); err != nil {
		return err
	}
	if b.chromium == "" {
		b.say("SKIPPED: Chromium is not installed; the first page load is not measured")
	}
	b.report.Short = b.short
	b.report.Machine = thisMachine(b.scratch)
	b.report.Versions = b.versions(ctx)
	return nil
}

// buildEnvironment uses the product's own builder; both sides run in what it makes.
func (b *bench) buildEnvironment(ctx context.Context) error {
	s, err := space.Open(b.app)
	if err != nil {
		return err
	}
	builder := build.New(build.Config{Dir: b.environments, Progress: func(step build.Step) {
		if step.State == build.Started {
			b.say("environment: %s ...", step.Text)
		}
	}})
	b.env, err = builder.Build(ctx, build.Spec{Gradio: s.SDKVersion, Python: s.PythonVersion, Dir: s.Dir}, false)
	return err
}

func (b *bench) buildSpacehost(ctx context.Context) (err error) {
	if b.spacehost != "" {
		b.spacehost, err = filepath.Abs(b.spacehost)
		return err
	}
	b.say("building spacehost ...")
	b.spacehost = filepath.Join(b.scratch, "spacehost")
	c := exec.CommandContext(ctx, "go", "build", "-o", b.spacehost, "./cmd/spacehost")
	c.Dir = b.root
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build spacehost: %w\n%s", err, out)
	}
	return nil
}

// interleave takes the sides in turns; who begins alternates.
func (b *bench) interleave(ctx context.Context) error {
	for round := 1; round <= b.options.rounds; round++ {
		sides := []string{stock, ours}
		if round%2 == 0 {
			slices.Reverse(sides)
		}
		for _, name := range sides {
			if err := b.visit(ctx, round, name); err != nil {
				return err
			}
		}
		b.ceilings(ctx, round)
		if err := b.crowds(ctx, round, sides); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// visit takes all steps that share a process.
func (b *bench) visit(ctx context.Context, round int, name string) error {
	var steps []step
	for _, s := range allSteps(b.short) {
		if !s.alone && b.wants(s) && (!s.once || round == 1) {
			steps = append(steps, s)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	return b.take(ctx, round, name, steps)
}

// crowds takes the steps that get a process of their own.
func (b *bench) crowds(ctx context.Context, round int, sides []string) error {
	for _, s := range allSteps(b.short) {
		for _, name := range sides {
			if !s.alone || !b.wants(s) || round > 1 {
				continue
			}
			if err := b.take(ctx, round, name, []step{s}); err != nil {
				return err
			}
		}
	}
	return nil
}

// take starts a side, warms it, measures steps, and ends it.
func (b *bench) take(ctx context.Context, round int, name string, steps []step) error {
	s, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer s.stop()
	for range 20 {
		if _, _, err := s.client.call(ctx, newHash(), "noop", `["warm"]`, `"warm"`); err != nil {
			return fmt.Errorf("warm %s: %w\n%s", name, err, s.said())
		}
		s.events++
	}
	for _, step := range steps {
		began := time.Now()
		v, err := step.measure(ctx, b, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.note(round, name, step.name, v, err, began)
	}
	return nil
}

// note keeps what was measured, and shows it.
func (b *bench) note(round int, side, step string, v values, err error, began time.Time) {
	r := record{Round: round, Side: side, Step: step, Values: v, Took: time.Since(began).Seconds()}
	var said []string
	for _, key := range slices.Sorted(maps.Keys(v)) {
		said = append(said, fmt.Sprintf("%s %.4g", key, v[key]))
	}
	if err != nil {
		r.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
		said = append(said, "WRONG: "+r.Error)
	}
	b.report.Rounds = append(b.report.Rounds, r)
	b.say("[%d/%d] %-14s %-14s %s", round, b.options.rounds, side, step, strings.Join(said, ", "))
}

// keep writes --json.
func (b *bench) keep() error {
	if b.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.report, "", " ")
	if err == nil {
		err = os.WriteFile(b.json, append(data, '\n'), 0o644)
	}
	if err != nil {
		return errors.Join(errors.New("--json: the rounds were measured and not kept"), err)
	}
	return nil
}
