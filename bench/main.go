// Command bench measures spacehost and plain Gradio side by side, on the same Space, on this machine.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

const help = `usage: go run ./bench [flags]

Measures spacehost and plain Gradio (python app.py) side by side: the same Space (bench/app), the same
environment, the same client, this machine. Per round each side is started anew, warmed, measured and ended;
the sides take turns (A B, B A, ...), so that a machine which others use slows both. The table has the median of
the rounds, and what spacehost is meant to reach. A call that is dropped, or answered wrongly, is counted and shown.

All five rounds take about half an hour, most of it waiting for plain Gradio. Each waiting visitor needs an open file:
ulimit -n 12000. How much the no-ops reach of Gradio's own process_events, in a process by itself, is shown twice: of
it as Gradio wrote it, and of it with the shortcuts that the runner takes.

  go run ./bench                              everything
  go run ./bench --short                      a minute: tries that all works, its numbers mean little
  go run ./bench --only noop-16,config        two of the rows
  go run ./bench --only waiting-10000 --hold 5m
  go run ./bench --json rounds.json           keep the raw rounds

Rows (--only):
`

const flagsHelp = `
Plain Gradio gives no GPUs: for the row gpu it asks a server which says yes to all, and keeps no accounts.
A no-op has Gradio's default concurrency limit, one at a time; "side by side" it has none. Waiting visitors are
measured in one round only. Exit codes: 0 measured, also when a side has dropped calls;
1 something could not be measured; 2 wrong usage.

Flags:
`

// options are the flags, and what follows from them.
type options struct {
	spacehost    string
	environments string
	json         string
	only         []string
	rounds       int
	hold         time.Duration
	short        bool
	size
}

// size says how much is measured: enough to mean something, and a sliver of it for --short.
type size struct {
	span    time.Duration // of one rate
	tired   int           // events after which a process counts as used
	steps   int           // of the generator
	upload  int64         // bytes
	calls   int           // one after another, for a latency
	ceiling time.Duration // of one rate of ceiling.py and of the stub
}

var (
	full  = size{span: 2 * time.Second, tired: 5000, steps: 300, upload: 256 << 20, calls: 40, ceiling: time.Second}
	short = size{span: 200 * time.Millisecond, tired: 150, steps: 20, upload: 8 << 20, calls: 3, ceiling: 200 * time.Millisecond}
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func main() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) }

// Main runs one command line and returns its exit code. SIGINT and SIGTERM end what was started.
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
		fmt.Fprintln(stderr, "bench: interrupted; every process has been ended")
		return 1
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	var only string
	f.StringVar(&o.spacehost, "spacehost", "", "measure this binary; default: build ./cmd/spacehost")
	f.StringVar(&o.environments, "environments", environments(), "folder where the Python environment is made, and kept")
	f.StringVar(&o.json, "json", "", "write the raw rounds to this file")
	f.StringVar(&only, "only", "", "measure these rows alone, by name, with commas")
	f.IntVar(&o.rounds, "rounds", 0, "how often both sides are measured (default 5, with --short 1)")
	f.DurationVar(&o.hold, "hold", 0, "how long visitors are kept waiting once all are there (default 5s)")
	f.BoolVar(&o.short, "short", false, "a little of everything, for CI")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		usage(f, stderr)
		return o, err
	} else if err != nil {
		return o, usageError{err}
	}
	if f.NArg() > 0 {
		return o, usageError{fmt.Errorf("%q is not a flag", f.Arg(0))}
	}
	return o.complete(only)
}

func usage(f *flag.FlagSet, to io.Writer) {
	fmt.Fprint(to, help)
	for _, s := range allSteps(false) {
		fmt.Fprintf(to, "  %-14s %s\n", s.name, s.about)
	}
	fmt.Fprint(to, flagsHelp)
	f.SetOutput(to)
	f.PrintDefaults()
}

// complete fills in what depends on --short, and checks the rest.
func (o options) complete(only string) (options, error) {
	o.size = full
	usualRounds, usualHold := 5, 5*time.Second
	if o.short {
		o.size, usualRounds, usualHold = short, 1, short.span
	}
	if o.rounds == 0 {
		o.rounds = usualRounds
	}
	if o.hold == 0 {
		o.hold = usualHold
	}
	if o.rounds < 1 || o.rounds > 100 {
		return o, usageError{fmt.Errorf("--rounds %d is not between 1 and 100", o.rounds)}
	}
	if o.hold < 0 || o.hold > 15*time.Minute {
		return o, usageError{fmt.Errorf("--hold %s is not between 0 and 15m", o.hold)}
	}
	if err := o.checkFiles(); err != nil {
		return o, usageError{err}
	}
	if only == "" {
		return o, nil
	}
	var names []string
	for _, s := range allSteps(o.short) {
		names = append(names, s.name)
	}
	for name := range strings.SplitSeq(only, ",") {
		if !slices.Contains(names, name) {
			return o, usageError{fmt.Errorf("--only: there is no row %q; there are %s", name, strings.Join(names, ", "))}
		}
		o.only = append(o.only, name)
	}
	return o, nil
}

// checkFiles finds out before a quarter of an hour is spent.
func (o options) checkFiles() error {
	if o.spacehost != "" {
		if _, err := exec.LookPath(o.spacehost); err != nil {
			return fmt.Errorf("--spacehost: %w; build one with `make build`, or leave the flag out", err)
		}
	}
	if o.json == "" {
		return nil
	}
	f, err := os.OpenFile(o.json, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--json: %w; name a file that can be written", err)
	}
	return f.Close()
}

// wants reports whether --only lets a step through.
func (o options) wants(s step) bool { return len(o.only) == 0 || slices.Contains(o.only, s.name) }
