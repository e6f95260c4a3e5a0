package space

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// matter is the front matter of one README.md: its keys as YAML nodes, which keep `3.10` and `6.0` as they
// were written, where a decoder would make numbers of them.
type matter struct {
	fields   map[string]field
	warnings []warning
}

type field struct {
	line  int // of the key, in README.md
	value *yaml.Node
}

type warning struct {
	line int
	text string
}

// parse reads the front matter of a README.md; nil stands for a missing file.
func parse(readme []byte) (*matter, error) {
	m := &matter{fields: map[string]field{}}
	if readme == nil {
		m.warn(0, "README.md is missing: taking the newest Gradio and app.py; the Hub needs one that says sdk and sdk_version between two lines of ---")
		return m, nil
	}
	text, above, err := split(readme)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(text) == "" {
		m.warn(0, "README.md has no front matter: taking the newest Gradio and app.py; the Hub needs sdk and sdk_version between two lines of --- at its top")
		return m, nil
	}
	return m, m.read(text, above)
}

var notUTF8 = &ConfigError{Problem: "README.md is not UTF-8 text", Next: "save it as UTF-8"}

// split returns the text between the first two lines of ---, and how many lines stand above it. Blank
// lines before the first, blanks after the dashes, a byte order mark and any kind of line end are
// tolerated, as huggingface_hub's repocard.py tolerates them. No front matter is an empty text.
func split(readme []byte) (text string, above int, err error) {
	if bytes.HasPrefix(readme, []byte("\xff\xfe")) || bytes.HasPrefix(readme, []byte("\xfe\xff")) {
		return "", 0, notUTF8 // UTF-16, which some editors on Windows write
	}
	lines := strings.Split(unixLines(readme), "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) != "" })
	if first < 0 || !isRule(lines[first]) {
		return "", 0, nil
	}
	above = first + 1
	length := slices.IndexFunc(lines[above:], isRule)
	if length < 0 {
		return "", 0, &ConfigError{Line: above, Problem: "front matter begins here and never ends", Next: "close it with a line of ---"}
	}
	if text = strings.Join(lines[above:above+length], "\n"); !utf8.ValidString(text) {
		return "", 0, notUTF8
	}
	return text, above, nil
}

func unixLines(readme []byte) string {
	readme = bytes.TrimPrefix(readme, []byte("\ufeff"))
	readme = bytes.ReplaceAll(readme, []byte("\r\n"), []byte("\n"))
	return string(bytes.ReplaceAll(readme, []byte("\r"), []byte("\n")))
}

func isRule(line string) bool { return strings.TrimRight(line, " \t") == "---" }

// read fills m from YAML that stands below `above` lines of README.md.
func (m *matter) read(text string, above int) error {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return yamlError(err, above)
	}
	if len(doc.Content) == 0 { // comments only
		m.warn(above, "the front matter is empty: taking the newest Gradio and app.py")
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return &ConfigError{Line: root.Line + above, Problem: "the front matter is not a list of `key: value` lines", Next: "write one key and its value per line"}
	}
	return m.readKeys(root.Content, above)
}

// readKeys takes keys and values in turn. A key that stands twice is an error, as on the Hub.
func (m *matter) readKeys(nodes []*yaml.Node, above int) error {
	for i := 0; i+1 < len(nodes); i += 2 {
		key, line := nodes[i].Value, nodes[i].Line+above
		if earlier, twice := m.fields[key]; twice {
			return &ConfigError{Key: key, Line: line, Problem: fmt.Sprintf("%q stands here and in line %d", key, earlier.line), Next: "remove one of them"}
		}
		m.fields[key] = field{line: line, value: resolve(nodes[i+1])}
		if !slices.Contains(knownKeys, key) {
			m.warn(line, unknown(key))
		}
	}
	return nil
}

// resolve follows an alias one step: an anchor's own aliases are never expanded, so they cannot explode.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

var yamlLine = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func yamlError(err error, above int) error {
	problem, line := err.Error(), above+1
	if found := yamlLine.FindStringSubmatch(problem); found != nil {
		problem = found[2]
		if n, err := strconv.Atoi(found[1]); err == nil {
			line = n + above
		}
	}
	return &ConfigError{Line: line, Problem: "the front matter is not YAML (" + problem + ")",
		Next: "correct that line or the one before it; a value with a colon, a # or a quote in it needs quotes around it"}
}

func (m *matter) warn(line int, text string) {
	m.warnings = append(m.warnings, warning{line, text})
}

// sentences returns the warnings in the order of their lines.
func (m *matter) sentences() []string {
	slices.SortStableFunc(m.warnings, func(a, b warning) int { return a.line - b.line })
	var all []string
	for _, w := range m.warnings {
		if w.line > 0 {
			w.text = fmt.Sprintf("README.md line %d: %s", w.line, w.text)
		}
		all = append(all, w.text)
	}
	return all
}

// line returns where key stands, 0 if nowhere.
func (m *matter) line(key string) int { return m.fields[key].line }

// value returns key's node, nil if it is missing or empty (`python_version:` means nothing, as on the Hub).
func (m *matter) value(key string) *yaml.Node {
	v := m.fields[key].value
	if v == nil || v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null" {
		return nil
	}
	return v
}

// text returns a scalar as it was written. Another kind is worth a warning only: these keys are for show.
func (m *matter) text(key string) string {
	v := m.value(key)
	if v == nil {
		return ""
	}
	if v.Kind != yaml.ScalarNode {
		m.warn(m.line(key), key+" should be one text; ignored")
		return ""
	}
	return strings.TrimSpace(v.Value)
}

// list returns a sequence of texts; one bare text is a list of one.
func (m *matter) list(key string) []string {
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
			m.warn(m.line(key), key+" should be a list of texts; ignored")
			return nil
		}
		texts = append(texts, item.Value)
	}
	return texts
}

// table returns a mapping of texts to texts.
func (m *matter) table(key string) map[string]string {
	v := m.value(key)
	if v == nil {
		return nil
	}
	var table map[string]string
	if v.Decode(&table) != nil {
		m.warn(m.line(key), key+" should be a list of `name: value` lines; ignored")
		return nil
	}
	return table
}

func (m *matter) flag(key string, otherwise bool) bool {
	v := m.value(key)
	if v == nil {
		return otherwise
	}
	var flag bool
	if v.Decode(&flag) != nil {
		m.warn(m.line(key), fmt.Sprintf("%s should be true or false; taken as %t", key, otherwise))
		return otherwise
	}
	return flag
}

func (m *matter) number(key string, otherwise int) int {
	v := m.value(key)
	if v == nil {
		return otherwise
	}
	var n int
	if v.Decode(&n) != nil || n <= 0 {
		m.warn(m.line(key), fmt.Sprintf("%s should be a whole number above 0; taken as %d", key, otherwise))
		return otherwise
	}
	return n
}
