package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"spacehost/internal/nearest"

	"go.yaml.in/yaml/v3"
	"spacehost/internal/lazyregexp"
)

// Problem is one mistake in a configuration file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Key  string `json:"key"` // such as spaces[0].visibility; empty if the mistake belongs to no key
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Key, p.Text)
}

// FileError holds every Problem of a configuration file, sorted by line.
type FileError struct{ Problems []Problem }

func (e *FileError) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	lines := []string{fmt.Sprintf("%s has %d mistakes:", e.Problems[0].File, len(e.Problems))}
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// document is a YAML file. It collects the Problems found in its nodes, so that one run reports all of them.
type document struct {
	file     string
	problems []Problem
}

func (d *document) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &FileError{d.problems}
}

// node is one value of a document. The root node has an empty path. The zero node stands for a key that the file does
// not have.
type node struct {
	doc  *document
	path string
	line int
	yaml *yaml.Node
}

// isPresent reports whether the file has the node's key.
func (n node) isPresent() bool { return n.doc != nil }

// fail adds a Problem at the node's line and path.
func (n node) fail(format string, args ...any) {
	n.doc.problems = append(n.doc.problems, Problem{n.doc.file, n.line, n.path, fmt.Sprintf(format, args...)})
}

// parseYAML returns the root of the file's single YAML document. It returns ok false, with a Problem, if the file is not
// valid YAML.
func (d *document) parseYAML(data []byte) (root node, ok bool) {
	root = node{doc: d, line: 1}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := decoder.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			root.fail("the file is empty; add at least one Space under `spaces`")
		} else {
			root.failSyntax(data, err)
		}
		return root, false
	}
	if err := decoder.Decode(&second); err == nil {
		root.line = second.Line
		root.fail("a second YAML document begins here, but a file holds one configuration; remove the `---` line")
		return root, false
	} else if !errors.Is(err, io.EOF) {
		root.failSyntax(data, err)
		return root, false
	}
	root.yaml = first.Content[0]
	return root, true
}

var yamlLine = lazyregexp.New(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func (n node) failSyntax(data []byte, err error) {
	text := err.Error()
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		text = found[2]
		if line, err := strconv.Atoi(found[1]); err == nil {
			n.line = line
		}
	}
	where := "check the block that begins here"
	if line := firstBadLine(data); line > 0 {
		n.line, where = line, "every line above is valid, so check this line and the block that begins in it"
	}
	n.fail("invalid YAML (%s): %s; put quotes around a value that contains a colon, a # or a quote", text, where)
}

// maxSyntaxSearch bounds the bytes that firstBadLine parses: about one second of work.
const maxSyntaxSearch = 16 << 20

// firstBadLine returns the line of the first syntax error: all lines above it parse as YAML. It returns 0 if the search
// exceeds maxSyntaxSearch. The parser itself reports only the line where the enclosing block begins, which may be far
// above the mistake.
func firstBadLine(data []byte) (line int) {
	lines := bytes.SplitAfter(data, []byte("\n"))
	above, parsed := len(data), 0
	for n := len(lines) - 1; n >= 0 && parsed < maxSyntaxSearch; n-- {
		above -= len(lines[n])
		parsed += above
		if isYAML(data[:above]) {
			return n + 1
		}
	}
	return 0
}

func isYAML(data []byte) bool {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var err error
	for err == nil {
		err = d.Decode(new(yaml.Node))
	}
	return errors.Is(err, io.EOF)
}

// child returns the node of a key or a list item of n.
func (n node) child(path string, line int, inner *yaml.Node) node {
	if inner.Kind == yaml.AliasNode { // one step: aliases inside the anchor's value are resolved when they are read
		inner = inner.Alias
	}
	return node{n.doc, path, line, inner}
}

func (n node) childPath(key string) string {
	if n.path == "" {
		return key
	}
	return n.path + "." + key
}

// mapping calls each for the keys of a mapping, in the file's order. A duplicate key and a key without a value are
// mistakes.
func (n node) mapping(what string, each func(key string, at node)) {
	if n.yaml.Kind != yaml.MappingNode {
		n.fail("must be %s; write one `key: value` per line", what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.yaml.Content); i += 2 {
		key := n.yaml.Content[i]
		at := n.child(n.childPath(key.Value), key.Line, n.yaml.Content[i+1])
		switch earlier, duplicate := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			at.path = n.path
			at.fail("a key must be a single word, not a list or a mapping")
		case duplicate:
			at.fail("duplicate key, first set in line %d; remove one of them", earlier)
		case at.isNull():
			at.fail("has no value; set one, or remove the key")
		default:
			each(key.Value, at)
		}
		if key.Kind == yaml.ScalarNode {
			seen[key.Value] = key.Line
		}
	}
}

func (n node) isNull() bool { return n.yaml.Kind == yaml.ScalarNode && n.yaml.ShortTag() == "!!null" }

// fields calls the function of each key in known. Any other key is a mistake.
func (n node) fields(what string, known map[string]func(node)) {
	n.mapping(what, func(key string, at node) {
		if read, ok := known[key]; ok {
			read(at)
			return
		}
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		at.fail("unknown key; %s", suggest(key, names, "known keys: "))
	})
}

// suggest returns the next step after an unknown word: the nearest known word, or else the label and all known words.
func suggest(word string, known []string, label string) string {
	if near := nearest.Key(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return label + "none"
	}
	return label + strings.Join(known, ", ")
}

// list calls each for the items of a sequence.
func (n node) list(what string, each func(node)) {
	if n.yaml.Kind != yaml.SequenceNode {
		n.fail("must be a list of %s; write [one, two], or one item per line after a dash", what)
		return
	}
	for i, item := range n.yaml.Content {
		at := n.child(fmt.Sprintf("%s[%d]", n.path, i), item.Line, item)
		if at.isNull() {
			at.fail("has no value; set one, or remove the item")
			continue
		}
		each(at)
	}
}

// texts calls each for the items of a list of texts. An item that is not text is a mistake.
func (n node) texts(what string, each func(node, string)) {
	n.list(what, func(at node) {
		if text, ok := at.text(); ok {
			each(at, text)
		}
	})
}

// text returns a scalar that YAML reads as text and that is not blank.
func (n node) text() (string, bool) {
	text, ok := n.scalar()
	if ok && n.yaml.ShortTag() != "!!str" {
		n.fail("YAML does not read %s as text; put quotes around it", n.yaml.Value)
		return "", false
	}
	if ok && strings.TrimSpace(text) == "" {
		n.fail("is empty; set a value, or remove the key")
		return "", false
	}
	return text, ok
}

// scalar returns one value as the file spells it: 1.10 stays 1.10.
func (n node) scalar() (string, bool) {
	if n.yaml.Kind != yaml.ScalarNode {
		n.fail("must be a single value, not a list or a mapping")
		return "", false
	}
	return n.yaml.Value, true
}

func (n node) boolean() (yes, ok bool) {
	if n.yaml.Kind != yaml.ScalarNode || n.yaml.ShortTag() != "!!bool" || n.yaml.Decode(&yes) != nil {
		n.fail("must be true or false")
		return false, false
	}
	return yes, true
}

func (n node) number(least, most int) (int, bool) {
	text, ok := n.scalar()
	if !ok {
		return 0, false
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < least || number > most {
		n.fail("must be a whole number from %d to %d, not %.40q", least, most, text)
		return 0, false
	}
	return number, true
}

// duration reads a duration such as 90s or 10m. A number without a unit is in seconds.
func (n node) duration(least, most time.Duration) (time.Duration, bool) {
	text, ok := n.scalar()
	if !ok {
		return 0, false
	}
	d, err := parseDuration(text)
	if err != nil || d < least || d > most {
		n.fail("must be a duration from %s to %s, such as 90s, 10m or a number of seconds, not %.40q", least, most, text)
		return 0, false
	}
	return d, true
}

// parseDuration parses 90s, 10m or a number of seconds.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	return time.ParseDuration(text)
}

// oneOf returns a scalar that is one of words.
func (n node) oneOf(words ...string) (string, bool) {
	text, ok := n.scalar()
	if ok && !slices.Contains(words, text) {
		n.fail("unknown value %.40q; %s", text, suggest(text, words, "use one of "))
		return "", false
	}
	return text, ok
}
