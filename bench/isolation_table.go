package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// quantile returns a quantile of values, which it sorts; 0 if there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	at := q * float64(len(values)-1)
	below := int(at)
	above := min(below+1, len(values)-1)
	return values[below] + (at-float64(below))*(values[above]-values[below])
}

// byRound returns the values of a line at one level, by round.
func (r report) byRound(level, step, key string) map[int]float64 {
	all := map[int]float64{}
	for _, record := range r.Rounds {
		if value, ok := record.Values[key]; ok && record.Target == level && record.Step == step {
			all[record.Round] = value
		}
	}
	return all
}

// printLevels writes the table of --isolation.
func (b *bench) printLevels(to io.Writer) {
	var steps []step
	for _, s := range levelSteps(b.short) {
		steps = append(steps, s.step)
	}
	b.printComparison(to, steps, "goal for namespaces")
}

// printComparison writes the columns and their differences to the first one.
func (b *bench) printComparison(to io.Writer, steps []step, goal string) {
	b.report.printMachine(to)
	fmt.Fprintf(to, "Median of %d rounds (first and third quartile). Differences to %q are taken within each round.\n\n", b.report.lastRound(), b.columns[0])
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, name := range b.columns {
		fmt.Fprintf(t, "\t%s", name)
	}
	for _, name := range b.columns[1:] {
		fmt.Fprintf(t, "\t%s, difference", name)
	}
	fmt.Fprintf(t, "\t%s\n", goal)
	for _, s := range steps {
		for _, l := range s.lines {
			if b.wants(s) {
				b.printComparisonLine(t, s, l)
			}
		}
	}
	t.Flush()
}

func (b *bench) printComparisonLine(to io.Writer, s step, l line) {
	base := b.report.byRound(b.columns[0], s.name, l.key)
	fmt.Fprint(to, l.text)
	for _, name := range b.columns {
		fmt.Fprintf(to, "\t%s", spread(b.report.byRound(name, s.name, l.key), l.format))
	}
	for _, name := range b.columns[1:] {
		fmt.Fprintf(to, "\t%s", difference(base, b.report.byRound(name, s.name, l.key), l.format))
	}
	fmt.Fprintf(to, "\t%s\n", l.goal)
}

// spread formats the median of the rounds and the quartiles.
func spread(rounds map[int]float64, format string) string {
	if len(rounds) == 0 {
		return "-"
	}
	all := make([]float64, 0, len(rounds))
	for _, value := range rounds {
		all = append(all, value)
	}
	return fmt.Sprintf(format+" ("+format+" to "+format+")", quantile(all, 0.5), quantile(all, 0.25), quantile(all, 0.75))
}

// difference formats the median of the differences within the rounds, their quartiles, and the median in percent.
func difference(base, rounds map[int]float64, format string) string {
	var more, percent []float64
	for round, value := range rounds {
		if of, ok := base[round]; ok && of > 0 {
			more, percent = append(more, value-of), append(percent, 100*(value-of)/of)
		}
	}
	if len(more) == 0 {
		return "-"
	}
	signed := "%+" + format[1:]
	return fmt.Sprintf(signed+" ("+signed+" to "+signed+"), %+.1f %%", quantile(more, 0.5), quantile(more, 0.25), quantile(more, 0.75), quantile(percent, 0.5))
}
