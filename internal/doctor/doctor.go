// Package doctor finds what is missing on this machine for spacehost, and what to do about it.
//
// # Terms
//
//   - Check: one examination of the machine, with a time limit.
//   - Finding: one result of a Check: a Level, a text, and the next step unless the Level is OK.
//   - Level: ok, note (everything works), warning (works worse than expected), problem (something does not work).
//
// # Types
//
// The command `spacehost doctor` calls Checks for the list of checks, and Run for their Findings. Config names what
// spacehost will use on this machine. A machine is the examined file tree, system calls and probes of package sandbox: tests
// replace it. AppArmorProfile writes the remedy for machines on which AppArmor restricts user namespaces.
//
// # Failures
//
// A Check that exceeds its limit yields its Late Finding, and its goroutine is abandoned. A value that cannot be read
// yields a Finding, never an error. No Check installs, changes or leaves behind anything.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Level is the severity of a Finding.
type Level string

// The levels, from good to bad.
const (
	OK      Level = "ok"
	Note    Level = "note"    // worth knowing; spacehost works
	Warning Level = "warning" // spacehost works, but something will be worse than expected
	Problem Level = "problem" // spacehost, or a part of it, does not work here
)

// Finding is one result of a Check: what it means for spacehost, and what to do.
type Finding struct {
	Check string `json:"check"` // the Check's name; set by Run
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do"` // the next step; empty if Level is OK
}

// Check is one examination of this machine.
type Check struct {
	Name  string
	Limit time.Duration // maximum duration of Probe; 0: defaultLimit
	Late  Finding       // the result if Probe takes longer; zero: a warning that the result is unknown

	// Probe returns at least one Finding. It should end with ctx, but need not.
	Probe func(ctx context.Context) []Finding
}

const defaultLimit = 5 * time.Second

// Run makes all checks concurrently, and returns their Findings in the order of the checks. It returns when the last
// check has ended or exceeded its limit. A late check is abandoned, since a call into a wedged driver or to an
// unreachable file server cannot be cancelled. Its goroutine ends when the call returns, perhaps only with the
// program.
func Run(ctx context.Context, checks []Check) []Finding {
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { found[i] = c.run(ctx) })
	}
	all.Wait()
	return slices.Concat(found...)
}

func (c Check) run(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	answered := make(chan []Finding, 1)
	go func() { answered <- c.Probe(ctx) }()
	var found []Finding
	select {
	case found = <-answered:
	case <-ctx.Done():
		found = []Finding{c.late()}
	}
	for i := range found {
		found[i].Check = c.Name
	}
	return found
}

func (c Check) limit() time.Duration { return cmp.Or(c.Limit, defaultLimit) }

func (c Check) late() Finding {
	return cmp.Or(c.Late, Finding{
		Level: Warning, Text: fmt.Sprintf("Unknown: this check did not end within %s", c.limit()),
		Do: "Try again when this machine is less busy",
	})
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, Text: fmt.Sprintf(format, args...)}
}
