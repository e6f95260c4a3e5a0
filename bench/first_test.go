package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestShortFirstStart measures one round with the wheel in $SPACEHOST_WHEEL: it checks answers, never speed. make wheel-test runs it.
func TestShortFirstStart(t *testing.T) {
	wheel := os.Getenv("SPACEHOST_WHEEL")
	if wheel == "" {
		t.Skip("SPACEHOST_WHEEL names no wheel; run `make wheel wheel-test`")
	}
	r, _ := shortRun(t, "--first", "--wheel", wheel)
	for _, way := range []string{byUV, oursUV} {
		for _, l := range firstLines {
			if took, ok := r.median(way, firstStep, l.key); !ok || took <= 0 {
				t.Errorf("%s, %s: %v, %v", way, l.text, took, ok)
			}
		}
	}
}

// TestTableOfFirstStarts: the difference is taken within each round, and a way may lack rounds.
func TestTableOfFirstStarts(t *testing.T) {
	b := &bench{}
	for round, seconds := range []float64{10, 30, 20} {
		for way, more := range map[string]float64{byUV: 0, oursUV: float64(4 + round)} {
			b.report.Rounds = append(b.report.Rounds, record{Round: round + 1, Target: way, Step: firstStep, Values: values{"both_s": seconds + more}})
		}
	}
	var table bytes.Buffer
	b.printFirst(&table)
	rows := strings.Split(strings.TrimSpace(table.String()), "\n")
	if got, want := strings.Join(strings.Fields(rows[len(rows)-2]), " "), "both, s 20.0 26.0 +5.0 - - - above <= 10"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
