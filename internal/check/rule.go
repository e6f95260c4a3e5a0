package check

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/lazyregexp"
)

//go:embed rules/*.md
var pages embed.FS

// Rule is one page of the folder rules: front matter with the texts below, and a Markdown body that explains the rule.
type Rule struct {
	ID       string   `yaml:"-"` // the file's name; its letter is the bucket
	Title    string   `yaml:"title"`
	Severity Severity `yaml:"severity"`
	Stages   []Stage  `yaml:"stages"` // those that can find it, the earliest first
	// OwnBucket is the bucket of a rule whose identifier has the letter of another: its number comes from where the cause
	// is, its bucket from what happens.
	OwnBucket string `yaml:"bucket"`
	// Text and Fix are the sentences of a Finding. {name} stands for a value of the Fact.
	Text string `yaml:"text"`
	Fix  string `yaml:"fix"`
	// Sources are what the rule rests on: a file and version of a package, or a page of Hugging Face. Test names the test
	// that shows the failure with the real package, where there is one.
	Sources []string `yaml:"sources"`
	Test    string   `yaml:"test"`
	Page    string   `yaml:"-"` // the Markdown body
}

// Bucket returns the letter of the kind of failure.
func (r Rule) Bucket() string { return cmp.Or(r.OwnBucket, r.ID[:1]) }

// Rules returns all rules, ordered by their identifiers. The caller must not change the result. It may be called from any
// goroutine.
func Rules() []Rule { return all() }

// RuleByID returns a rule. ok is false for an unknown identifier.
func RuleByID(id string) (rule Rule, ok bool) {
	i, ok := slices.BinarySearchFunc(all(), id, func(r Rule, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return Rule{}, false
	}
	return all()[i], true
}

// all reads the embedded pages once. A page that cannot be read is a mistake of this program, which every test finds.
var all = sync.OnceValue(func() []Rule {
	rules, err := readRules(pages)
	if err != nil {
		panic(err)
	}
	return rules
})

func readRules(files fs.FS) ([]Rule, error) {
	names, err := fs.Glob(files, "rules/*.md")
	if err != nil {
		return nil, err
	}
	var rules []Rule
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		rule, err := readRule(strings.TrimSuffix(path.Base(name), ".md"), data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil // fs.Glob sorts
}

func readRule(id string, data []byte) (Rule, error) {
	head, body, found := strings.Cut(strings.TrimPrefix(string(data), "---\n"), "\n---\n")
	if !found {
		return Rule{}, fmt.Errorf("no front matter between two lines of ---")
	}
	rule := Rule{ID: id, Page: strings.TrimSpace(body) + "\n"}
	decoder := yaml.NewDecoder(bytes.NewBufferString(head))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rule); err != nil {
		return Rule{}, err
	}
	return rule, rule.check()
}

var (
	identifier  = lazyregexp.New(`^[A-HS][0-9]{3}$`)
	placeholder = lazyregexp.New(`\{([a-z_]+)\}`)
)

func (r Rule) check() error {
	switch {
	case !identifier.MatchString(r.ID):
		return fmt.Errorf("%q is not a letter of a bucket and three digits", r.ID)
	case r.Title == "" || r.Text == "" || len(r.Sources) == 0:
		return fmt.Errorf("title, text and sources are required")
	case !slices.Contains([]Severity{Error, Warning, Info}, r.Severity):
		return fmt.Errorf("severity %q", r.Severity)
	case r.OwnBucket != "" && !identifier.MatchString(r.OwnBucket+"000"):
		return fmt.Errorf("bucket %q", r.OwnBucket)
	case len(r.Stages) == 0:
		return fmt.Errorf("stages is empty")
	}
	for _, stage := range r.Stages {
		if !slices.Contains([]Stage{StageRead, StageBuild, StageRun, StageCall}, stage) {
			return fmt.Errorf("stage %q", stage)
		}
	}
	return nil
}

// finding writes a Fact, seen at stage, in the words of the rule.
func (r Rule) finding(f Fact, stage Stage) Finding {
	found := Finding{ID: r.ID, Bucket: r.Bucket(), Severity: r.Severity, File: f.File, Line: f.Line, Stage: stage, Values: f.Values,
		Text: fill(r.Text, f.Values), Fix: fill(r.Fix, f.Values)}
	if f.Severity != "" {
		found.Severity = f.Severity
	}
	return found
}

// fill replaces each {name} of text that has a value. Values are text of the Space and are not searched for names.
func fill(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		if value, ok := values[name[1:len(name)-1]]; ok {
			return value
		}
		return name
	})
}
