// Package printable makes text of a Space safe for a terminal and for a log.
//
// A Space decides what it prints, what its frames contain and which names its functions have. A control character in
// such a text moves the cursor, changes colours or writes over the operator's other lines. Terminals obey the C1 controls
// (U+0080 to U+009F) like the escape sequences that they abbreviate: U+009B begins a sequence as ESC and "[" do.
//
// Text cleans output of several lines, Line a text that must stay one line, Reason a sentence that must also stay short. NewWriter and NewJSONWriter clean everything that
// passes through a writer: package cli uses the first for the terminal, internal/host the second for its log.
package printable

import (
	"strings"
	"unicode"
)

// maxReason is the number of runes that Reason keeps.
const maxReason = 200

// Text returns text without control characters other than tab and line feed. Invalid UTF-8 is replaced with U+FFFD.
func Text(text string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, text)
}

// isControl reports the C0 and C1 controls and DEL, except for tab and line feed.
func isControl(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' }

// Line returns text as one line. White space, line breaks included, becomes single spaces. Controls and characters that
// change the direction of writing are removed.
func Line(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case isControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// Reason returns the first 200 runes of Line: enough for a sentence with a path.
func Reason(text string) string {
	if len(text) > 16*maxReason { // the rest can only be cut off
		text = text[:16*maxReason]
	}
	text = Line(text)
	if runes := []rune(text); len(runes) > maxReason {
		return string(runes[:maxReason-1]) + "…"
	}
	return text
}
