// Command bench measures spacehost and plain Gradio side by side, with the same Space on this machine. With --isolation, it
// compares the levels of isolation of spacehost instead, with --agent a host without an agent, one with an agent and a node, with
// --first the time from an empty folder to a first answer, and with --nodes a front with 1,000 simulated nodes.
//
// # Terms
//
//   - Target: plain Gradio or spacehost, started with the Space bench/app.
//   - Step: one measurement on a running target. It yields one or more lines of the table. A row name (--only) selects a step.
//   - Round: one start, measurement and stop of each target.
//   - Level: a level of isolation. One host serves the Space once at each level (isolation.go).
//   - Upper bound: a rate that no target can exceed, measured without a host.
//
// # Structure
//
// run starts the targets in alternating order and records the steps of each round. table.go prints the median of the
// rounds and the goals for spacehost.
//
// compareLevels restarts the Space of each level in each round. Every measurement alternates between the levels call by
// call. isolation_table.go prints the median of the rounds, the quartiles, and the differences to the level none.
//
// compareAgents (agent.go) runs a host without an agent, one with an agent and one with a node at the same time, and measures them in
// turn.
//
// measureNodes (nodes.go) runs a front as a process, and the agents of its nodes in this one.
//
// compareFirst (first.go) installs the wheel and plain Gradio in empty folders, and starts each of them once per round.
//
// # Failures
//
// A call that is dropped or answered incorrectly is counted and printed, and is not part of a rate. Ctrl-C stops
// every started process and prints what was measured before.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"spacehost/internal/sandbox"
)

const help = `usage: go run ./bench [flags]

Measures spacehost and plain Gradio (python app.py) side by side: the same Space (bench/app), the same
environment, the same client, this machine. Each round starts each target, warms it up, measures it and stops it.
The targets alternate (A B, B A, ...), so that other load on the machine slows both. The table shows the median of
the rounds, and the goals for spacehost. Calls that are dropped or answered incorrectly are counted and shown.

All five rounds take about half an hour, most of it waiting for plain Gradio. Each waiting visitor needs an open file:
ulimit -n 12000. The table compares the no-ops with two upper bounds: Gradio's own process_events in a separate
process, unmodified and with the runner's fast paths.

  go run ./bench                              everything
  go run ./bench --short                      about a minute: checks that everything works; the numbers mean little
  go run ./bench --only noop-16,config        two of the rows
  go run ./bench --only waiting-10000 --hold 5m
  go run ./bench --json rounds.json           keep the raw rounds
  go run ./bench --isolation                  compare the levels of isolation of spacehost (5 minutes)
  go run ./bench --isolation --only gpu,post  two of its rows
  go run ./bench --agent                      compare spacehost serve without an agent, with one, and with a node (5 minutes)
  go run ./bench --nodes                      a front with 1,000 simulated nodes (10 minutes)
  go run ./bench --first                      from an empty folder to a first answer, with the wheel of make wheel (5 minutes)

Rows (--only):
`

const flagsHelp = `
Plain Gradio provides no GPUs: for the row gpu it uses a stub server that grants every request without accounting.
A no-op has Gradio's default concurrency limit of one; "side by side" has no limit. Waiting visitors are
measured only in the first round. Exit codes: 0 measured, even if a target dropped calls;
1 a measurement failed; 2 wrong usage.

Flags:
`

// options holds the flags and the values derived from them.
type options struct {
	spacehost    string
	environments string
	json         string
	only         []string
	rounds       int
	hold         time.Duration
	short        bool
	isolation    bool
	first        bool
	agent        bool
	nodes        bool
	wheel        string
	size
}

// size is the amount of measurement: enough for a meaningful result, or a fraction of it for --short.
type size struct {
	span       time.Duration // of one rate
	usedEvents int           // events after which a process counts as used
	steps      int           // of the generator
	upload     int64         // bytes
	calls      int           // sequential calls for a latency
	boundSpan  time.Duration // of one rate of upper_bound.py and of the stub
}

var (
	full  = size{span: 2 * time.Second, usedEvents: 5000, steps: 300, upload: 256 << 20, calls: 40, boundSpan: time.Second}
	short = size{span: 200 * time.Millisecond, usedEvents: 150, steps: 20, upload: 8 << 20, calls: 3, boundSpan: 200 * time.Millisecond}
)

// usageError is an error in the command line.
type usageError struct{ error }

func main() {
	sandbox.MaybeRun() // returns unless this process tries a level of isolation
	maybeFront()
	os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
}

// Main runs one command line and returns its exit code. SIGINT and SIGTERM stop all started processes.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o, err := parse(args, stderr)
	if err == nil {
		_, err = run(ctx, o, stdout, stderr)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "bench: %v; see `go run ./bench --help`\n", err)
		return 2
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "bench: interrupted; all started processes have been stopped")
		return 1
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	var only string
	f.StringVar(&o.spacehost, "spacehost", "", "binary to measure (default: build ./cmd/spacehost)")
	f.StringVar(&o.environments, "environments", environments(), "folder in which the Python environment is created and kept")
	f.StringVar(&o.json, "json", "", "file for the raw rounds")
	f.StringVar(&only, "only", "", "comma-separated names of the rows to measure (default: all)")
	f.IntVar(&o.rounds, "rounds", 0, "number of rounds (default 5; with --isolation 10; with --first 3; with --nodes 3; with --short 1)")
	f.DurationVar(&o.hold, "hold", 0, "time for which visitors wait after all have joined (default 5s)")
	f.BoolVar(&o.isolation, "isolation", false, "compare the levels of isolation of spacehost, without plain Gradio")
	f.BoolVar(&o.first, "first", false, "measure the time from an empty folder to a first answer: the wheel, and plain Gradio with uv and pip")
	f.BoolVar(&o.agent, "agent", false, "compare spacehost serve without an agent, with agent: local, and with a Space on a node")
	f.BoolVar(&o.nodes, "nodes", false, "measure a front with 1,000 simulated nodes, without plain Gradio")
	f.StringVar(&o.wheel, "wheel", "", "wheel of --first (default: the newest of this machine in dist)")
	f.BoolVar(&o.short, "short", false, "measure a little of everything, for CI")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		usage(f, stderr)
		return o, err
	} else if err != nil {
		return o, usageError{err}
	}
	if f.NArg() > 0 {
		return o, usageError{fmt.Errorf("unexpected argument %q; remove it", f.Arg(0))}
	}
	return o.complete(only)
}

func usage(f *flag.FlagSet, to io.Writer) {
	fmt.Fprint(to, help)
	for _, s := range allSteps(false) {
		fmt.Fprintf(to, "  %-14s %s\n", s.name, s.about)
	}
	fmt.Fprint(to, "\nRows with --isolation:\n")
	for _, s := range levelSteps(false) {
		fmt.Fprintf(to, "  %-14s %s\n", s.name, s.about)
	}
	fmt.Fprint(to, "\nRows with --agent:\n")
	for _, s := range agentSteps(false) {
		fmt.Fprintf(to, "  %-14s %s\n", s.name, s.about)
	}
	fmt.Fprint(to, "\nRows with --nodes:\n")
	for _, s := range nodeSteps() {
		fmt.Fprintf(to, "  %-14s %s\n", s.name, s.about)
	}
	fmt.Fprint(to, flagsHelp)
	f.SetOutput(to)
	f.PrintDefaults()
}

// complete sets the values that depend on --short, and validates the others.
func (o options) complete(only string) (options, error) {
	o.size = full
	defaultRounds, defaultHold := 5, 5*time.Second
	if o.isolation {
		defaultRounds = 10
	}
	if o.first || o.nodes {
		defaultRounds = 3
	}
	if o.short {
		o.size, defaultRounds, defaultHold = short, 1, short.span
	}
	if o.rounds == 0 {
		o.rounds = defaultRounds
	}
	if o.hold == 0 {
		o.hold = defaultHold
	}
	if o.rounds < 1 || o.rounds > 100 {
		return o, usageError{fmt.Errorf("--rounds %d is not between 1 and 100", o.rounds)}
	}
	if o.hold < 0 || o.hold > 15*time.Minute {
		return o, usageError{fmt.Errorf("--hold %s is not between 0 and 15m", o.hold)}
	}
	if o.nodes && (o.agent || o.isolation || o.first) {
		return o, usageError{errors.New("--nodes measures rows of its own; remove --agent, --isolation and --first")}
	}
	if o.agent && (o.isolation || o.first) {
		return o, usageError{errors.New("--agent measures rows of its own; remove --isolation and --first")}
	}
	if o.first && (o.isolation || only != "" || o.spacehost != "") {
		return o, usageError{errors.New("--first measures one row with a wheel; remove --isolation, --only and --spacehost")}
	}
	if err := o.checkWheel(); err != nil {
		return o, usageError{err}
	}
	if err := o.checkFiles(); err != nil {
		return o, usageError{err}
	}
	if only == "" {
		return o, nil
	}
	names := o.rowNames()
	for name := range strings.SplitSeq(only, ",") {
		if !slices.Contains(names, name) {
			return o, usageError{fmt.Errorf("--only: unknown row %q; choose from %s", name, strings.Join(names, ", "))}
		}
		o.only = append(o.only, name)
	}
	return o, nil
}

// rowNames lists the values of --only.
func (o options) rowNames() (names []string) {
	if o.isolation {
		for _, s := range levelSteps(o.short) {
			names = append(names, s.name)
		}
		return names
	}
	if o.nodes {
		for _, s := range nodeSteps() {
			names = append(names, s.name)
		}
		return names
	}
	if o.agent {
		for _, s := range agentSteps(o.short) {
			names = append(names, s.name)
		}
		return names
	}
	for _, s := range allSteps(o.short) {
		names = append(names, s.name)
	}
	return names
}

// checkWheel finds the wheel of --first.
func (o *options) checkWheel() (err error) {
	if !o.first {
		if o.wheel != "" {
			return errors.New("--wheel needs --first")
		}
		return nil
	}
	if o.wheel == "" {
		machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
		found, _ := filepath.Glob("dist/spacehost-*_" + machine + ".whl") // a constant pattern
		if len(found) != 1 {
			return fmt.Errorf("--first: %d wheels of this machine in dist; build one with `make wheel`, or name one with --wheel", len(found))
		}
		o.wheel = found[0]
	}
	if _, err := os.Stat(o.wheel); err != nil {
		return fmt.Errorf("--wheel: %w; build it with `make wheel`", err)
	}
	o.wheel, err = filepath.Abs(o.wheel)
	return err
}

// checkFiles checks the files before a quarter of an hour has been spent.
func (o options) checkFiles() error {
	if o.spacehost != "" {
		if _, err := exec.LookPath(o.spacehost); err != nil {
			return fmt.Errorf("--spacehost: %w; build it with `make build`, or omit the flag", err)
		}
	}
	if o.json == "" {
		return nil
	}
	f, err := os.OpenFile(o.json, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--json: %w; name a writable file", err)
	}
	return f.Close()
}

// wants reports whether --only selects the step.
func (o options) wants(s step) bool { return len(o.only) == 0 || slices.Contains(o.only, s.name) }
