package shelf

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// naming is the transformation that a gradio_client version applies to the name of an uploaded file
// (gradio_client/utils.py, strip_invalid_filename_characters).
type naming func(name string) string

// namingOf returns the rule that reproduces the Space's samples, or nil.
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

// nameV4 keeps letters, digits and ._- in the whole name.
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

// nameV5 keeps letters, digits and ._-, in the stem, and keeps the extension unchanged.
func nameV5(filename string) string {
	stem, ext := splitExt(filename)
	stem = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) || strings.ContainsRune("._-, ", r) {
			return r
		}
		return -1
	}, stem)
	return truncate(stem, ext)
}

// nameV6 removes characters that are special to file systems or shells.
func nameV6(filename string) string {
	stem, ext := splitExt(filename)
	stem = strings.Map(dropUnsafe, stem)
	if ext != "" {
		ext = "." + strings.Map(dropUnsafe, ext[1:])
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
	if isDeviceName(strings.ToUpper(strings.TrimRight(first, " "))) {
		stem = "_" + stem
	}
	if short := truncate(stem, ext); len(short) <= maxNameBytes {
		return short
	}
	stem = "file"
	for len(stem)+len(ext) > maxNameBytes {
		ext = withoutLast(ext)
	}
	return stem + ext
}

func dropUnsafe(r rune) rune {
	if r < 0x20 || r == 0x7f || strings.ContainsRune("<>:\"/\\|?*`$!{}", r) {
		return -1
	}
	return r
}

// isDeviceName reports the device names of Windows.
func isDeviceName(name string) bool {
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

func truncate(stem, ext string) string {
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

// safeDecode decodes a name as Starlette does: as UTF-8, else as Latin-1 (starlette/formparsers.py,
// _user_safe_decode).
func safeDecode(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return pytext.Latin1(s)
}
