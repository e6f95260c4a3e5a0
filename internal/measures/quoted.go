package measures

import (
	"regexp"
	"strings"
)

// quoted scans source that consists of comments, quoted strings and code.
type quoted struct {
	marks []mark // tried in order
}

// mark is a pair of delimiters of a comment or a string.
type mark struct {
	open, close string
	comment     bool
	oneLine     bool // a line feed ends the text too
}

var python = quoted{
	marks: []mark{
		{open: "#", close: "\n", comment: true},
		{open: `"""`, close: `"""`}, {open: `'''`, close: `'''`},
		{open: `"`, close: `"`, oneLine: true}, {open: `'`, close: `'`, oneLine: true},
	},
}

var javaScript = quoted{
	marks: []mark{
		{open: "//", close: "\n", comment: true}, {open: "/*", close: "*/", comment: true},
		{open: "`", close: "`"},
		{open: `"`, close: `"`, oneLine: true}, {open: `'`, close: `'`, oneLine: true},
	},
}

// piece is one comment or string, with the code before it on its line.
type piece struct {
	mark
	line   int
	before string
	depth  int // open brackets before it
	text   string
}

// pieces splits a source. The scan knows no regular expressions of JavaScript and no strings nested in f-strings:
// a quote in them is taken for a string, at most to the end of its line.
func (q quoted) pieces(text string) (all []piece) {
	line, start, depth := 1, 0, 0
	for at := 0; at < len(text); {
		m := q.opens(text[at:])
		if m == nil {
			switch text[at] {
			case '\n':
				line, start = line+1, at+1
			case '(', '[', '{':
				depth++
			case ')', ']', '}':
				depth--
			}
			at++
			continue
		}
		body := m.body(text[at+len(m.open):])
		all = append(all, piece{*m, line, text[start:at], depth, body})
		at += len(m.open) + len(body)
		line += strings.Count(body, "\n")
		if i := strings.LastIndexByte(text[:at], '\n'); i >= 0 {
			start = i + 1
		}
		if strings.HasPrefix(text[at:], m.close) && m.close != "\n" {
			at += len(m.close)
		}
	}
	return all
}

func (q quoted) opens(text string) *mark {
	for i := range q.marks {
		if strings.HasPrefix(text, q.marks[i].open) {
			return &q.marks[i]
		}
	}
	return nil
}

// body returns the text up to the end of the comment or string.
func (m mark) body(text string) string {
	for at := 0; at < len(text); at++ {
		switch {
		case strings.HasPrefix(text[at:], m.close), m.oneLine && text[at] == '\n':
			return text[:at]
		case text[at] == '\\' && !m.comment:
			at++
		}
	}
	return text
}

// escape matches an escaped line feed, carriage return or tab. It separates words.
var escape = regexp.MustCompile(`\\[nrt]`)

func unescape(text string) string {
	return escape.ReplaceAllString(text, " ")
}

// statement matches the code before a docstring: spaces and a string prefix.
var statement = regexp.MustCompile(`^\s*[rRuUbB]*$`)

// scanPython returns the comments, docstrings included, and the strings of a Python file.
func scanPython(text string) (spans []span) {
	for _, p := range python.pieces(text) {
		kind := PythonString
		if p.comment || p.depth == 0 && statement.MatchString(p.before) {
			kind = PythonComment
		}
		spans = append(spans, span{p.line, kind, unescape(p.text)})
	}
	return spans
}

// scanJavaScript returns the comments and the strings of a JavaScript file.
func scanJavaScript(text string) (spans []span) {
	for _, p := range javaScript.pieces(text) {
		kind := PageText
		if p.comment {
			kind = PageComment
		}
		spans = append(spans, span{p.line, kind, unescape(p.text)})
	}
	return spans
}
