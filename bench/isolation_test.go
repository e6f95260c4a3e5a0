package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/feature/featuretest"
	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	maybeFront()
	os.Exit(m.Run())
}

// TestShortComparisonHasEveryNumber runs the comparison of the levels as CI does: it checks answers, never speed.
func TestShortComparisonHasEveryNumber(t *testing.T) {
	r, progress := shortRun(t, "--isolation")
	levels := []string{levelNone, levelFiles, levelNamespaces}
	if strings.Contains(progress, "SKIPPED") {
		featuretest.Missing(t, "this machine lacks what the comparison needs:\n%s", progress)
	}
	for _, s := range levelSteps(true) {
		for _, l := range s.lines {
			for _, level := range levels {
				missing := s.name == "egress" && level == levelFiles || s.name == "memory" && level != levelNamespaces
				if _, ok := r.median(level, s.name, l.key); ok == missing {
					t.Errorf("%s at level %s: a number %v, want %v", l.text, level, ok, !missing)
				}
			}
		}
	}
	if took, _ := r.median(levelNamespaces, restartStep, "process_ms"); took <= 0 {
		t.Errorf("start of a sandbox: %v ms", took)
	}
}

// TestTableOfLevels: the median, the quartiles and the difference within each round, also if a level lacks a round.
func TestTableOfLevels(t *testing.T) {
	b := &bench{options: options{only: []string{"noop"}}, columns: []string{levelNone, levelFiles, levelNamespaces}}
	for round, figures := range [][]float64{{10, 10.5}, {20, 20.4}, {30, 30.3}} {
		for i, level := range []string{levelNone, levelNamespaces} {
			b.report.Rounds = append(b.report.Rounds, record{Round: round + 1, Target: level, Step: "noop", Values: values{"p50_ms": figures[i]}})
		}
	}
	var table bytes.Buffer
	b.printLevels(&table)
	for _, want := range []string{"Median of 3 rounds", "20.00 (15.00 to 25.00)", "20.40 (15.45 to 25.35)", "+0.40 (+0.35 to +0.45), +2.0 %"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
}

// TestEachSpaceFollowsEachOther: what a call leaves behind slows the next one, so no level may always follow the same one.
func TestEachSpaceFollowsEachOther(t *testing.T) {
	c := &rotation{}
	for _, level := range []string{levelNone, levelFiles, levelNamespaces} {
		c.spaces = append(c.spaces, &servedSpace{name: level})
	}
	follows := map[[2]string]int{}
	first := map[string]int{}
	for range 6 {
		order := c.inTurn()
		first[order[0].name]++
		for i := range order[1:] {
			follows[[2]string{order[i].name, order[i+1].name}]++
		}
	}
	for pair, n := range follows {
		if n != 2 || len(follows) != 6 {
			t.Errorf("%v: %d times of 12, want 2 of each of 6 pairs: %v", pair, n, follows)
		}
	}
	if !slices.Equal([]int{first[levelNone], first[levelFiles], first[levelNamespaces]}, []int{2, 2, 2}) {
		t.Errorf("first: %v", first)
	}
}
