package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/nearest"
)

// problem is one mistake of a configuration file.
type problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Key  string `json:"key"` // as spaces[0].visibility; empty if it is about no key
	Text string `json:"text"`
}

func (p problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Key, p.Text)
}

// configError is all that is wrong with a configuration file, by line.
type configError struct{ problems []problem }

func (e *configError) Error() string {
	if len(e.problems) == 1 {
		return e.problems[0].String()
	}
	lines := []string{fmt.Sprintf("%s has %d mistakes:", e.problems[0].File, len(e.problems))}
	for _, p := range e.problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// reader collects what is wrong with a file, so that its author reads all of it at once.
type reader struct {
	file     string
	problems []problem
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.Line, b.Line) })
	return &configError{r.problems}
}

// value is what stands at a key, or the file's whole content with an empty path.
type value struct {
	r    *reader
	path string
	line int
	node *yaml.Node
}

func (v value) fail(format string, args ...any) {
	v.r.problems = append(v.r.problems, problem{v.r.file, v.line, v.path, fmt.Sprintf(format, args...)})
}

// parseYAML returns the file's one document; what is no YAML ends the reading.
func (r *reader) parseYAML(data []byte) (root value, ok bool) {
	root = value{r: r, line: 1}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	if err := d.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			root.fail("the file is empty: it needs `spaces` at least")
		} else {
			root.failSyntax(data, err)
		}
		return root, false
	}
	if err := d.Decode(&more); err == nil {
		root.line = more.Line
		root.fail("a second document begins here: one file is one configuration, remove the line of ---")
		return root, false
	} else if !errors.Is(err, io.EOF) {
		root.failSyntax(data, err)
		return root, false
	}
	root.node = document.Content[0]
	return root, true
}

var yamlLine = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

func (v value) failSyntax(data []byte, err error) {
	text := err.Error()
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		text = found[2]
		if n, err := strconv.Atoi(found[1]); err == nil {
			v.line = n
		}
	}
	look := "look at the block that begins here"
	if line := firstWrong(data); line > 0 {
		v.line, look = line, "all above this line is, so look at the line, or at what begins in it"
	}
	v.fail("this is not YAML (%s): %s; a value with a colon, a # or a quote in it needs quotes around it", text, look)
}

// mostTried bounds what firstWrong reads, in bytes: a second's work.
const mostTried = 16 << 20

// firstWrong is the line at which a file that is no YAML ceases to be some, 0 if that takes too long to find: what is
// above it can be read. The parser itself tells where the block around a mistake begins, which may be far above it.
func firstWrong(data []byte) (line int) {
	lines := bytes.SplitAfter(data, []byte("\n"))
	above, tried := len(data), 0
	for n := len(lines) - 1; n >= 0 && tried < mostTried; n-- {
		above -= len(lines[n])
		tried += above
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

// below is what stands at a key of v, or in its list.
func (v value) below(path string, line int, node *yaml.Node) value {
	if node.Kind == yaml.AliasNode { // one step: what the anchor holds has aliases of its own, which are followed where they are read
		node = node.Alias
	}
	return value{v.r, path, line, node}
}

func (v value) join(key string) string {
	if v.path == "" {
		return key
	}
	return v.path + "." + key
}

// table calls each for the keys of a mapping, in the file's order. A key that stands twice, or without a value, is a mistake.
func (v value) table(what string, each func(key string, at value)) {
	if v.node.Kind != yaml.MappingNode {
		v.fail("must be %s, one `key: value` in each line", what)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		at := v.below(v.join(key.Value), key.Line, v.node.Content[i+1])
		switch earlier, twice := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			at.path = v.path
			at.fail("a key must be one word")
		case twice:
			at.fail("stands here and in line %d: remove one of them", earlier)
		case at.isNull():
			at.fail("has no value: give it one, or remove the key")
		default:
			each(key.Value, at)
		}
		if key.Kind == yaml.ScalarNode {
			seen[key.Value] = key.Line
		}
	}
}

func (v value) isNull() bool { return v.node.Kind == yaml.ScalarNode && v.node.ShortTag() == "!!null" }

// fields calls the one of each key; a key that is not known is a mistake.
func (v value) fields(what string, known map[string]func(value)) {
	v.table(what, func(key string, at value) {
		if read, ok := known[key]; ok {
			read(at)
			return
		}
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		at.fail("unknown key; %s", meant(key, names))
	})
}

// meant is what to write instead of a word that is none of the known.
func meant(word string, known []string) string {
	if near := nearest.Key(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "there are none"
	}
	return "there are " + strings.Join(known, ", ")
}

// list calls each for the items of a sequence.
func (v value) list(what string, each func(value)) {
	if v.node.Kind != yaml.SequenceNode {
		v.fail("must be a list of %s, as [one, two] or one after each dash", what)
		return
	}
	for i, node := range v.node.Content {
		at := v.below(fmt.Sprintf("%s[%d]", v.path, i), node.Line, node)
		if at.isNull() {
			at.fail("has no value")
			continue
		}
		each(at)
	}
}

// texts are the items of a list that say keeps; one that it refuses is a mistake.
func (v value) texts(what string, keep func(value, string)) {
	v.list(what, func(at value) {
		if text, ok := at.text(); ok {
			keep(at, text)
		}
	})
}

// text is a value that YAML takes for text as well.
func (v value) text() (string, bool) {
	text, ok := v.plain()
	if ok && v.node.ShortTag() != "!!str" {
		v.fail("%s is not text to YAML: put quotes around it", v.node.Value)
		return "", false
	}
	if ok && strings.TrimSpace(text) == "" {
		v.fail("is empty: give it a value, or remove the key")
		return "", false
	}
	return text, ok
}

// plain is one value as it is written: 1.10 stays 1.10.
func (v value) plain() (string, bool) {
	if v.node.Kind != yaml.ScalarNode {
		v.fail("must be one value, and not a list or a mapping")
		return "", false
	}
	return v.node.Value, true
}

func (v value) flag() (yes, ok bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" || v.node.Decode(&yes) != nil {
		v.fail("must be true or false")
		return false, false
	}
	return yes, true
}

func (v value) number(least, most int) (int, bool) {
	text, ok := v.plain()
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		v.fail("must be a whole number from %d to %d, and not %.40q", least, most, text)
		return 0, false
	}
	return n, true
}

// span is a duration, as 90s or 10m; a number alone is seconds.
func (v value) span(least, most time.Duration) (time.Duration, bool) {
	text, ok := v.plain()
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	if seconds, bad := strconv.ParseFloat(text, 64); bad == nil && seconds >= 0 && seconds < 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < least || d > most {
		v.fail("must be from %s to %s, as 90s, 10m or a number of seconds, and not %.40q", least, most, text)
		return 0, false
	}
	return d, true
}

// one is one of a few words.
func (v value) one(words ...string) (string, bool) {
	text, ok := v.plain()
	if ok && !slices.Contains(words, text) {
		v.fail("%.40q is not known here; %s", text, meant(text, words))
		return "", false
	}
	return text, ok
}
