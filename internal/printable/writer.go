package printable

import (
	"fmt"
	"io"
	"unicode/utf8"
)

// NewWriter returns a writer for a terminal. It removes control characters other than tab and line feed, as Text does.
// A character may be split between two calls of Write. The writer may be used by one goroutine at a time.
func NewWriter(to io.Writer) io.Writer { return &writer{to: to} }

// NewJSONWriter returns a writer for lines of JSON. It writes C1 controls and DEL as JSON escapes, which keep the value.
// JSON contains no other control character inside a string. The writer may be used by one goroutine at a time.
func NewJSONWriter(to io.Writer) io.Writer { return &writer{to: to, escape: true} }

type writer struct {
	to      io.Writer
	escape  bool
	partial []byte // the beginning of a character
}

// Unwrap returns the writer behind this one, for a caller that has cleaned its texts itself.
func (w *writer) Unwrap() io.Writer { return w.to }

// Write reports the bytes of p as written once they are cleaned. A character that p does not complete is written by the next
// call.
func (w *writer) Write(p []byte) (int, error) {
	text := append(w.partial, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if start := text[len(text)-i:]; utf8.RuneStart(start[0]) {
			if !utf8.FullRune(start) {
				whole -= i
			}
			break
		}
	}
	clean := make([]byte, 0, whole)
	for rest := text[:whole]; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		switch {
		case !isControl(r):
			clean = utf8.AppendRune(clean, r)
		case w.escape:
			clean = fmt.Appendf(clean, `\u%04x`, r)
		}
	}
	w.partial = append([]byte(nil), text[whole:]...)
	if _, err := w.to.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}
