package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// median returns the median of a line over the rounds of one target; false if there is no value.
func (r report) median(target, step, key string) (float64, bool) {
	var all []float64
	for _, record := range r.Rounds {
		if value, ok := record.Values[key]; ok && record.Target == target && record.Step == step {
			all = append(all, value)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	middle := len(all) / 2
	if len(all)%2 == 1 {
		return all[middle], true
	}
	return (all[middle-1] + all[middle]) / 2, true
}

// print writes the table of both targets, the upper bounds, and the wrong answers.
func (b *bench) print(to io.Writer) {
	r := b.report
	r.printMachine(to)
	fmt.Fprintf(to, "Median of %d rounds; the ratio is spacehost divided by gradio.\n\n", r.lastRound())
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tgradio\tspacehost\tratio\tgoal\tof process_events (>= 90 %)\tof it with fast paths")
	for _, s := range allSteps(b.short) {
		for _, l := range s.lines {
			if b.wants(s) {
				r.printLine(t, s, l)
			}
		}
	}
	t.Flush()
	r.printBounds(to)
	r.printWrong(to)
}

func (r report) printMachine(to io.Writer) {
	m := r.Machine
	fmt.Fprintf(to, "%s\n%s, %d cores, %s; load %s; fsync p50 %.2f ms, p99 %.2f ms\n", r.Versions, m.CPU, m.Cores, m.Kernel, m.Load, m.FsyncP50, m.FsyncP99)
}

func (r report) lastRound() int { return r.Rounds[len(r.Rounds)-1].Round }

func (r report) printLine(to io.Writer, s step, l line) {
	a, hasA := r.median(stock, s.name, l.key)
	b, hasB := r.median(ours, s.name, l.key)
	if !hasA && !hasB {
		fmt.Fprintf(to, "%s\tnot measured\n", l.text)
		return
	}
	format := l.format
	if format == "" {
		format = "%.1f"
	}
	cell := func(value float64, has bool) string {
		if !has {
			return "-"
		}
		return fmt.Sprintf(format, value)
	}
	ratio := "-"
	if hasA && hasB && a > 0 {
		ratio = fmt.Sprintf("%.2fx", b/a)
	}
	fmt.Fprintf(to, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.text, cell(a, hasA), cell(b, hasB), ratio, l.goal,
		r.shareOf(b, "plain-", l.share), r.shareOf(b, "", l.share))
}

// shareOf returns a rate as a percentage of an upper bound.
func (r report) shareOf(rate float64, prefix, share string) string {
	bound, ok := r.median(engine, boundStep, prefix+share)
	if !ok || share == "" {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*rate/bound)
}

// printBounds prints the rates that no host, and no client, can exceed.
func (r report) printBounds(to io.Writer) {
	if _, ok := r.median(bare, boundStep, "hash"); ok {
		fmt.Fprint(to, "\nparts of an upload on this machine, each measured separately, MB/s:")
		for i, key := range []string{"receive", "hash", "write", "write-again"} {
			rate, _ := r.median(bare, boundStep, key)
			fmt.Fprintf(to, "%s %s %.0f", map[bool]string{true: ","}[i > 0], strings.ReplaceAll(key, "-", " "), rate)
		}
		fmt.Fprintln(to)
	}
	if _, ok := r.median(engine, boundStep, "1"); !ok {
		return
	}
	fmt.Fprintf(to, "\nno-op events/s, by number in flight (and CPU time per event):\n")
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\t1\t16\t100")
	for _, row := range []struct{ text, target, prefix string }{
		{"Gradio's own process_events alone, in the Space's process", engine, "plain-"},
		{"the same with the runner's fast paths", engine, ""},
		{"the same inside the runner, without a host", engine, "whole-"},
		{"this client, against a server that does nothing, in one process", stub, ""},
	} {
		fmt.Fprint(t, row.text)
		for _, n := range inFlight {
			rate, _ := r.median(row.target, boundStep, fmt.Sprint(row.prefix, n))
			fmt.Fprintf(t, "\t%.0f", rate)
			if us, ok := r.median(row.target, boundStep, fmt.Sprint(row.prefix, n, "-us")); ok {
				fmt.Fprintf(t, " (%.0f us)", us)
			}
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// printWrong lists every call that was dropped or answered incorrectly.
func (r report) printWrong(to io.Writer) {
	fmt.Fprintln(to)
	clean := true
	for _, record := range r.Rounds {
		if record.Error != "" {
			clean = false
			fmt.Fprintf(to, "WRONG: %s, %s, round %d: %s\n", record.Target, record.Step, record.Round, record.Error)
		}
	}
	if clean {
		fmt.Fprintln(to, "All answers were correct.")
	}
}
