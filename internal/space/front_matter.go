package space

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/lazyregexp"
)

// frontMatter is the front matter of one README.md: its keys as YAML nodes. Nodes keep `3.10` and `6.0` as written; a
// decoder would turn them into numbers.
type frontMatter struct {
	fields   map[string]field
	findings []Finding
}

type field struct {
	line  int // of the key, in README.md
	value *yaml.Node
}

// noMetadata is the Hub's warning (huggingface_hub, repocard.py prints the same).
const noMetadata = "empty or missing yaml metadata in repo card"

// parse reads the front matter of a README.md; nil means a missing file.
func parse(readme []byte) (*frontMatter, error) {
	m := &frontMatter{fields: map[string]field{}}
	if readme == nil {
		m.add(Finding{Code: NoFrontMatter, Hub: noMetadata, Problem: "README.md is missing: using the newest Gradio and app.py",
			Fix: "add one with sdk and sdk_version between two lines of ---, which the Hub requires"})
		return m, nil
	}
	text, offset, err := split(readme)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(text) == "" {
		if line := unenclosed(readme); line > 0 {
			m.add(Finding{Code: NotEnclosed, Line: line, Hub: noMetadata, Problem: "no lines of --- enclose the front matter that begins here: using the newest Gradio and app.py",
				Fix: "put a line of --- above it, at the top of the file, and one below its last key"})
			return m, nil
		}
		m.add(Finding{Code: NoFrontMatter, Hub: noMetadata, Problem: "README.md has no front matter: using the newest Gradio and app.py",
			Fix: "add sdk and sdk_version between two lines of --- at its top, which the Hub requires"})
		return m, nil
	}
	return m, m.read(text, offset)
}

var notUTF8 = &ConfigError{Code: BadSyntax, Problem: "README.md is not UTF-8 text", Next: "save it as UTF-8"}

// split returns the text between the first two lines of ---, and the number of lines before it. It tolerates blank
// lines before the first ---, blanks after the dashes, a byte order mark and any line ending, as huggingface_hub's
// repocard.py does. Without front matter the text is empty.
func split(readme []byte) (text string, offset int, err error) {
	if bytes.HasPrefix(readme, []byte("\xff\xfe")) || bytes.HasPrefix(readme, []byte("\xfe\xff")) {
		return "", 0, notUTF8 // UTF-16, which some editors on Windows write
	}
	lines := strings.Split(unixLines(readme), "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) != "" })
	if first < 0 || !isRule(lines[first]) {
		return "", 0, nil
	}
	offset = first + 1
	length := slices.IndexFunc(lines[offset:], isRule)
	if length < 0 {
		return "", 0, &ConfigError{Code: BadSyntax, Line: offset, Problem: "front matter starts here and is not closed", Next: "close it with a line of ---"}
	}
	if text = strings.Join(lines[offset:offset+length], "\n"); !utf8.ValidString(text) {
		return "", 0, notUTF8
	}
	return text, offset, nil
}

func unixLines(readme []byte) string {
	readme = bytes.TrimPrefix(readme, []byte("\ufeff"))
	readme = bytes.ReplaceAll(readme, []byte("\r\n"), []byte("\n"))
	return string(bytes.ReplaceAll(readme, []byte("\r"), []byte("\n")))
}

// unenclosed returns the line of the first key in a README.md whose text begins with keys such as sdk, 0 if it does not.
func unenclosed(readme []byte) int {
	first := 0
	for i, line := range strings.Split(unixLines(readme), "\n") {
		key, _, isKey := strings.Cut(line, ":")
		switch {
		case strings.TrimSpace(line) == "":
			if first > 0 {
				return 0
			}
			continue
		case !isKey || !slices.Contains(knownKeys, key):
			return 0
		}
		if first == 0 {
			first = i + 1
		}
		if key == "sdk" {
			return first
		}
	}
	return 0
}

func isRule(line string) bool { return strings.TrimRight(line, " \t") == "---" }

// read fills m from YAML that starts after `offset` lines of README.md.
func (m *frontMatter) read(text string, offset int) error {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return yamlError(err, text, offset)
	}
	if len(doc.Content) == 0 { // comments only
		m.add(Finding{Code: NoFrontMatter, Line: offset, Hub: noMetadata, Problem: "the front matter is empty: using the newest Gradio and app.py",
			Fix: "add sdk and sdk_version, which the Hub requires"})
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return &ConfigError{Code: BadSyntax, Line: root.Line + offset, Problem: "the front matter is not a list of `key: value` lines", Next: "write one key and its value per line"}
	}
	return m.readKeys(root.Content, offset)
}

// readKeys reads the alternating keys and values. A duplicate key is an error, as on the Hub.
func (m *frontMatter) readKeys(nodes []*yaml.Node, offset int) error {
	for i := 0; i+1 < len(nodes); i += 2 {
		key, line := nodes[i].Value, nodes[i].Line+offset
		if earlier, duplicate := m.fields[key]; duplicate {
			return &ConfigError{Code: BadSyntax, Key: key, Line: line, Problem: fmt.Sprintf("%q is set here and in line %d", key, earlier.line), Next: "remove one of them"}
		}
		m.fields[key] = field{line: line, value: resolve(nodes[i+1])}
		if !slices.Contains(knownKeys, key) {
			m.warnUnknown(line, key)
		}
	}
	return nil
}

// resolve follows an alias one step. Aliases inside an anchor are never expanded, so their size cannot explode.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

var yamlLine = lazyregexp.New(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func yamlError(err error, text string, offset int) error {
	problem, line := err.Error(), offset+1
	if found := yamlLine.FindStringSubmatch(problem); found != nil {
		problem = found[2]
		if n, err := strconv.Atoi(found[1]); err == nil {
			line = n + offset
		}
	}
	if lines := strings.Split(text, "\n"); line > offset && line-offset <= len(lines) && strings.Contains(lines[line-offset-1], "\t") {
		return &ConfigError{Code: BadSyntax, Line: line, Problem: "the front matter is not YAML (the line has a tab)", Next: "indent it with spaces"}
	}
	return &ConfigError{Code: BadSyntax, Line: line, Problem: "the front matter is not YAML (" + problem + ")",
		Next: "correct that line or the one before it; a value with a colon, a # or a quote in it needs quotes around it"}
}

// line returns the line of key, 0 if it is missing.
func (m *frontMatter) line(key string) int { return m.fields[key].line }

// value returns the node of key, or nil if it is missing or empty (an empty `python_version:` is ignored, as on the
// Hub).
func (m *frontMatter) value(key string) *yaml.Node {
	v := m.fields[key].value
	if v == nil || v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null" {
		return nil
	}
	return v
}

// text returns a scalar as written. Another kind of value is only a warning: these keys are for display.
func (m *frontMatter) text(key string) string {
	v := m.value(key)
	if v == nil {
		return ""
	}
	if v.Kind != yaml.ScalarNode {
		m.warn(IgnoredValue, m.line(key), key, key+" must be a single text", "ignored")
		return ""
	}
	return strings.TrimSpace(v.Value)
}

// list returns a sequence of texts. A single text is a list of one.
func (m *frontMatter) list(key string) []string {
	v := m.value(key)
	if v == nil {
		return nil
	}
	items := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		items = v.Content
	}
	var texts []string
	for _, item := range items {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode {
			m.warn(IgnoredValue, m.line(key), key, key+" must be a list of texts", "ignored")
			return nil
		}
		texts = append(texts, item.Value)
	}
	return texts
}

// table returns a mapping of texts to texts.
func (m *frontMatter) table(key string) map[string]string {
	v := m.value(key)
	if v == nil {
		return nil
	}
	var table map[string]string
	if v.Decode(&table) != nil {
		m.warn(IgnoredValue, m.line(key), key, key+" must be a list of `name: value` lines", "ignored")
		return nil
	}
	return table
}

func (m *frontMatter) flag(key string, otherwise bool) bool {
	v := m.value(key)
	if v == nil {
		return otherwise
	}
	var flag bool
	if v.Decode(&flag) != nil {
		m.warn(IgnoredValue, m.line(key), key, key+" must be true or false", fmt.Sprintf("using %t", otherwise))
		return otherwise
	}
	return flag
}

func (m *frontMatter) number(key string, otherwise int) int {
	v := m.value(key)
	if v == nil {
		return otherwise
	}
	var n int
	if v.Decode(&n) != nil || n <= 0 {
		m.warn(IgnoredValue, m.line(key), key, key+" must be a whole number above 0", fmt.Sprintf("using %d", otherwise))
		return otherwise
	}
	return n
}
