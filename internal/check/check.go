// Package check says what is missing on this machine, and what to do.
package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Level is how much a Finding matters.
type Level string

// The levels, from good to bad.
const (
	OK      Level = "ok"
	Note    Level = "note"    // worth knowing; spacehost works
	Warning Level = "warning" // spacehost works, and something will be worse than expected
	Problem Level = "problem" // spacehost, or a part of it, does not work here
)

// Finding is one thing that a Check found: what it means for spacehost, and what to do.
type Finding struct {
	Check string `json:"check"` // its name; Run fills it in
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do"` // empty where there is nothing to do
}

// Check is one question about this machine.
type Check struct {
	Name  string
	Limit time.Duration // how long Probe may take; 0: usualLimit
	Late  Finding       // what it means if Probe takes longer; zero: a warning that nobody knows

	// Probe returns one Finding at least. It should end with ctx, but need not.
	Probe func(ctx context.Context) []Finding
}

const usualLimit = 5 * time.Second

// Run makes all checks at the same time, and returns their Findings in the order of the checks. It returns when the last has ended or is
// late. One that is late is left behind, since a call cannot be taken back from a wedged driver or a dead file server: its goroutine ends
// when that answers, perhaps with the program.
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

func (c Check) limit() time.Duration { return cmp.Or(c.Limit, usualLimit) }

func (c Check) late() Finding {
	return cmp.Or(c.Late, Finding{
		Level: Warning, Text: fmt.Sprintf("Not known: this check did not end within %s", c.limit()),
		Do: "Try again when this machine has less to do",
	})
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, Text: fmt.Sprintf(format, args...)}
}
