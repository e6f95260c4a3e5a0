package printable_test

import (
	"encoding/json"
	"strings"
	"testing"

	"spacehost/internal/printable"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"plain, ümläut, 日本, 👩‍👩‍👦": "plain, ümläut, 日本, 👩‍👩‍👦",
		"a\tb\nc":                                "a\tb\nc",
		"\x1b[2J\x1b]0;title\x07end":             "[2J]0;titleend",
		"over\rwritten\x08\x00\x7f":              "overwritten",
		"C1: \u009b2J \u0080\u009f \u0090q":      "C1: 2J  q",
		"raw C1: \x9b2J":                         "raw C1: \uFFFD2J",
		"after the controls: \u00a0\u00ad\u00e9": "after the controls: \u00a0\u00ad\u00e9",
	} {
		if got := printable.Text(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestReason(t *testing.T) {
	for text, want := range map[string]string{
		"one sentence": "one sentence",
		" a\nspacehost: forged\r\n\tline\u2028x ": "a spacehost: forged line x",
		"\x1b[31mred\u009b0m":                     "[31mred0m",
		"\u202egnorw\u2066":                       "gnorw",
		strings.Repeat("é", 200):                  strings.Repeat("é", 200),
		strings.Repeat("é", 201):                  strings.Repeat("é", 199) + "…",
		strings.Repeat("é", 1<<20):                strings.Repeat("é", 199) + "…",
	} {
		if got := printable.Reason(text); got != want {
			t.Errorf("%.300q: got %q, want %q", text, got, want)
		}
		if got := printable.Line(text); len(text) <= 200 && got != want {
			t.Errorf("%q as a line: got %q, want %q", text, got, want)
		}
	}
}

// TestWriters writes a text in pieces of every size: a control character may be split between two pieces.
func TestWriters(t *testing.T) {
	const text = "a\x1b[2J\u009bb\x7f é 日本 \u009f\n"
	value, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1; size <= len(text); size++ {
		var terminal, log strings.Builder
		toTerminal, toLog := printable.NewWriter(&terminal), printable.NewJSONWriter(&log)
		for piece := range pieces(text, size) {
			if n, err := toTerminal.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("wrote %d of %d bytes: %v", n, len(piece), err)
			}
		}
		for piece := range pieces(string(value)+"\n", size) {
			_, _ = toLog.Write([]byte(piece)) // a strings.Builder accepts everything
		}
		if want := "a[2Jb é 日本 \n"; terminal.String() != want {
			t.Errorf("in pieces of %d bytes: got %q, want %q", size, terminal.String(), want)
		}
		var read string
		if err := json.Unmarshal([]byte(log.String()), &read); err != nil || read != text || printable.Text(log.String()) != log.String() {
			t.Errorf("in pieces of %d bytes: the log has %q (%v), want %q without controls", size, log.String(), err, text)
		}
	}
}

func pieces(text string, size int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			n := min(size, len(text))
			if !yield(text[:n]) {
				return
			}
			text = text[n:]
		}
	}
}
