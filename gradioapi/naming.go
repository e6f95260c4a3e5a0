package gradioapi

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"spacehost/queue"
)

// naming is what a gradio_client makes of the name of an uploaded file (gradio_client/utils.py,
// strip_invalid_filename_characters).
type naming func(name string) string

// namingOf returns the rule that explains the Space's samples, nil if there is none.
func namingOf(f *queue.Files) naming {
	for _, rule := range []naming{nameV6, nameV5, nameV4} {
		if len(f.Names) > 0 && explains(rule, f.Names) {
			return rule
		}
	}
	return nil
}

func explains(rule naming, samples map[string]string) bool {
	for name, want := range samples {
		if rule(name) != want {
			return false
		}
	}
	return true
}

const maxNameBytes = 200

// nameV4 keeps letters, digits and ._- everywhere.
func nameV4(filename string) string {
	filename = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) || strings.ContainsRune("._- ", r) {
			return r
		}
		return -1
	}, filename)
	for len(filename) > maxNameBytes {
		filename = withoutLast(filename)
	}
	return filename
}

// nameV5 keeps letters, digits and ._-, in the stem, and the extension as it is.
func nameV5(filename string) string {
	stem, ext := splitExt(filename)
	stem = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) || strings.ContainsRune("._-, ", r) {
			return r
		}
		return -1
	}, stem)
	return shortened(stem, ext)
}

// nameV6 drops what file systems and shells mind.
func nameV6(filename string) string {
	stem, ext := splitExt(filename)
	stem = strings.Map(mindful, stem)
	if ext != "" {
		ext = "." + strings.Map(mindful, ext[1:])
	}
	if stem == "" && ext != "" {
		stem = "file"
	}
	if stem+ext == ".." {
		return ".."
	}
	filename = strings.TrimRight(stem+ext, " .")
	if filename == "" {
		filename = "file"
	}
	stem, ext = splitExt(filename)
	first, _, _ := strings.Cut(filename, ".")
	if isDevice(strings.ToUpper(strings.TrimRight(first, " "))) {
		stem = "_" + stem
	}
	if short := shortened(stem, ext); len(short) <= maxNameBytes {
		return short
	}
	stem = "file"
	for len(stem)+len(ext) > maxNameBytes {
		ext = withoutLast(ext)
	}
	return stem + ext
}

func mindful(r rune) rune {
	if r < 0x20 || r == 0x7f || strings.ContainsRune("<>:\"/\\|?*`$!{}", r) {
		return -1
	}
	return r
}

// isDevice reports whether Windows takes a name for a device.
func isDevice(name string) bool {
	switch name {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	number, ok := strings.CutPrefix(name, "COM")
	if !ok {
		number, ok = strings.CutPrefix(name, "LPT")
	}
	return ok && utf8.RuneCountInString(number) == 1 && strings.Contains("123456789¹²³", number)
}

func shortened(stem, ext string) string {
	for stem != "" && len(stem)+len(ext) > maxNameBytes {
		stem = withoutLast(stem)
	}
	return stem + ext
}

func withoutLast(s string) string {
	_, size := utf8.DecodeLastRuneInString(s)
	return s[:len(s)-size]
}

// pythonBase is pathlib's Path(name).name.
func pythonBase(name string) string {
	parts := strings.Split(name, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i] != "" && parts[i] != "." {
			return parts[i]
		}
	}
	return ""
}

// safeDecode reads a name as Starlette does: UTF-8, else each byte is a letter (starlette/formparsers.py, _user_safe_decode).
func safeDecode(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return latin1(s)
}

// parseOptions reads a header of the form `kind; key=value; ...` as python_multipart does (multipart.py,
// parse_options_header): mime.ParseMediaType refuses much of what clients send for a filename.
func parseOptions(header string) (kind string, options map[string]string) {
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
		if key == "filename" && (len(value) > 2 && value[1:3] == `:\` || strings.HasPrefix(value, `\\`)) { // an old browser's whole path
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
