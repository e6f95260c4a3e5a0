package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// writeFidelity writes docs/fidelity.txt: one line per case and line of Gradio, and totals.
func writeFidelity(t *testing.T, report map[string]verdicts) {
	t.Helper()
	var out strings.Builder
	totals := map[string]int{}
	fmt.Fprintf(&out, "What `make fidelity` found: each case through spacehost and through stock Gradio. Made by it; do not edit.\n")
	for _, title := range slices.Sorted(maps.Keys(report)) {
		fmt.Fprintf(&out, "\n%s (gradio %s)\n", title, gradios[title[:2]])
		for _, name := range slices.Sorted(maps.Keys(report[title])) {
			fmt.Fprintf(&out, "  %-44s %s\n", name, strings.Join(report[title][name], ", "))
			for _, one := range report[title][name] {
				totals[one[strings.LastIndex(one, " ")+1:]]++
			}
		}
	}
	fmt.Fprintf(&out, "\n%d comparisons are equal, %d differ, %d fail\n", totals["equal"], totals["differs"], totals["fails"])
	if err := os.WriteFile("../../docs/fidelity.txt", []byte(out.String()), 0o644); err != nil {
		t.Error(err)
	}
}
