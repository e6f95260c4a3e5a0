// Package pytext reads and writes text as Python and its libraries do, where the text of Go's libraries differs: JSON of
// json.dumps and orjson, Latin-1, and the headers of forms.
//
// Packages gradioapi and internal/shelf answer in the place of a Python server with it. Nothing here fails or keeps state.
package pytext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// JSON encodes v as orjson does: compact, with "<" unescaped. It panics if v cannot be encoded: the types are the caller's own.
func JSON(v any) []byte {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false)
	if err := to.Encode(v); err != nil {
		panic(err)
	}
	return bytes.ReplaceAll(bytes.TrimSuffix(out.Bytes(), []byte("\n")), nextLine, []byte(`\u0085`))
}

// nextLine is a line break for the Python client of Gradio 4. encoding/json escapes the other such characters.
var nextLine = []byte("\u0085")

// Dumps writes valid JSON as Python's json.dumps does: a space after comma and colon, printable ASCII only.
// Numbers keep their original text (orjson's 1e-7 is 1e-07 in Python).
func Dumps(valid []byte) []byte {
	out := make([]byte, 0, len(valid)+len(valid)/8)
	inString := false
	for i := 0; i < len(valid); i++ {
		switch b := valid[i]; {
		case b >= 0x7f: // DEL and non-ASCII bytes
			r, size := utf8.DecodeRune(valid[i:])
			out = appendEscaped(out, r)
			i += size - 1
		case inString && b == '\\':
			out = append(out, b, valid[i+1])
			i++
		case !inString && (b == ' ' || b == '\t' || b == '\r' || b == '\n'):
		case b == '"':
			inString = !inString
			out = append(out, b)
		case !inString && (b == ',' || b == ':'):
			out = append(out, b, ' ')
		default:
			out = append(out, b)
		}
	}
	return out
}

func appendEscaped(out []byte, r rune) []byte {
	if r >= 0x10000 { // two surrogates
		r -= 0x10000
		return fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}

// Latin1 returns text with one code point for each byte of s, as Python decodes bytes as Latin-1.
func Latin1(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			runes := make([]rune, len(s))
			for j := range len(s) {
				runes[j] = rune(s[j])
			}
			return string(runes)
		}
	}
	return s
}

// ParseOptions parses a header of the form `kind; key=value; ...` as python_multipart does (multipart.py,
// parse_options_header). mime.ParseMediaType refuses much of what clients send for a filename.
func ParseOptions(header string) (kind string, options map[string]string) {
	options = map[string]string{}
	parts := splitParams(header)
	if len(parts) == 0 {
		return "", options
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		key, value = strings.ToLower(strings.TrimRight(key, " \t")), strings.Trim(value, " \t")
		if strings.Contains(key, "*") {
			continue // RFC 7578 section 4.2
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = strings.ReplaceAll(strings.ReplaceAll(value[1:len(value)-1], `\\`, `\`), `\"`, `"`)
		}
		if key == "filename" && (len(value) > 2 && value[1:3] == `:\` || strings.HasPrefix(value, `\\`)) { // an old browser sends the full path
			value = value[strings.LastIndexByte(value, '\\')+1:]
		}
		options[key] = value
	}
	return strings.ToLower(parts[0]), options
}

// splitParams splits at semicolons outside quotes.
func splitParams(header string) (parts []string) {
	start, quoted := 0, false
	for i := 0; i <= len(header); i++ {
		switch {
		case i == len(header) || header[i] == ';' && !quoted:
			parts = append(parts, strings.Trim(header[start:i], " \t"))
			start = i + 1
		case header[i] == '"' && (i == 0 || header[i-1] != '\\'):
			quoted = !quoted
		}
	}
	return parts
}
