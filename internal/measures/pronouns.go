package measures

import (
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"sort"
	"strings"
	"unicode"
)

// Kind is the kind of a piece of text.
type Kind string

// Kinds of text.
const (
	GoString      Kind = "Go strings"
	GoTestString  Kind = "Go strings, tests"
	PythonString  Kind = "Python strings"
	PageText      Kind = "HTML and JavaScript text"
	ScriptText    Kind = "testscript commands"
	GoComment     Kind = "Go comments"
	GoTestComment Kind = "Go comments, tests"
	PythonComment Kind = "Python comments"
	PageComment   Kind = "JavaScript comments"
	ConfigComment Kind = "Makefile, shell, YAML comments"
	ScriptComment Kind = "testscript comments"
	MarkdownText  Kind = "Markdown pages"
	groupStrings       = "strings"
	groupComments      = "comments"
	groupDocs          = "docs"
)

// Groups lists the groups of kinds in the order of the report. The limit applies to each group in total.
var Groups = []string{groupStrings, groupComments, groupDocs}

// kinds maps each group to its kinds.
var kinds = map[string][]Kind{
	groupStrings:  {GoString, GoTestString, PythonString, PageText, ScriptText},
	groupComments: {GoComment, GoTestComment, PythonComment, PageComment, ConfigComment, ScriptComment},
	groupDocs:     {MarkdownText},
}

// Count is the number of words and pronouns of a text.
type Count struct {
	Words    int
	Limited  int // pronouns that count against the limit
	Reported int // pronouns that are only reported
}

// Rate returns the limited pronouns per 1,000 words.
func (c Count) Rate() float64 {
	if c.Words == 0 {
		return 0
	}
	return float64(c.Limited) * 1000 / float64(c.Words)
}

func (c Count) plus(other Count) Count {
	return Count{c.Words + other.Words, c.Limited + other.Limited, c.Reported + other.Reported}
}

// Hit is one pronoun in a file.
type Hit struct {
	Path    string
	Line    int
	Kind    Kind
	Word    string
	Limited bool // false: only reported
	Text    string
}

// Allowed is one entry of the allowlist.
type Allowed struct {
	Glob, Text, Reason string
	used               int
}

var (
	//go:embed pronouns.txt
	pronounText string
	//go:embed allow.txt
	allowText string

	limited, pronouns = compile(pronounText)
)

// compile returns the limited words of a list of pronouns, and a pattern of all its words.
func compile(list string) (map[string]bool, *regexp.Regexp) {
	limited, all := map[string]bool{}, []string{}
	for _, line := range strings.Split(list, "\n") {
		use, word, ok := strings.Cut(line, "\t")
		if !ok {
			continue
		}
		all = append(all, regexp.QuoteMeta(word))
		limited[word] = use == "limit"
	}
	sort.Slice(all, func(a, b int) bool { return len(all[a]) > len(all[b]) }) // the longest alternative matches first
	return limited, regexp.MustCompile(`(?i)\b(?:` + strings.Join(all, "|") + `)\b`)
}

// parseAllowlist reads the lines of allow.txt.
func parseAllowlist(list string) (all []*Allowed, err error) {
	for i, line := range strings.Split(list, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 3 || fields[0] == "" || fields[1] == "" || fields[2] == "" {
			return nil, fmt.Errorf("allow.txt line %d has %d fields, not 3; separate glob, text and reason by one tab", i+1, len(fields))
		}
		all = append(all, &Allowed{Glob: fields[0], Text: fields[1], Reason: fields[2]})
	}
	return all, nil
}

// covers reports whether the pronoun at line[from:to] is part of an allowed text.
func (a *Allowed) covers(name, line string, from, to int) bool {
	if dir, ok := strings.CutSuffix(a.Glob, "/**"); ok {
		if !strings.HasPrefix(name, dir+"/") {
			return false
		}
	} else if ok, err := path.Match(a.Glob, name); !ok || err != nil {
		return false
	}
	for at := 0; ; at++ {
		i := strings.Index(line[at:], a.Text)
		if i < 0 {
			return false
		}
		at += i
		if at <= from && to <= at+len(a.Text) {
			return true
		}
	}
}

// count adds the words and the pronouns of a span.
func (r *Report) count(name string, s span, allow []*Allowed) {
	var sum Count
	for i, line := range strings.Split(strings.ReplaceAll(s.text, "’", "'"), "\n") {
		sum.Words += wordCount(line)
		for _, at := range pronouns.FindAllStringIndex(line, -1) {
			if allowed(allow, name, line, at) {
				continue
			}
			word := strings.ToLower(line[at[0]:at[1]])
			hit := Hit{name, s.line + i, s.kind, word, limited[word], strings.TrimSpace(line)}
			r.Hits = append(r.Hits, hit)
			if hit.Limited {
				sum.Limited++
			} else {
				sum.Reported++
			}
		}
	}
	place := Place{path.Dir(name), s.kind}
	r.Counts[place] = r.Counts[place].plus(sum)
}

func allowed(allow []*Allowed, name, line string, at []int) bool {
	for _, a := range allow {
		if a.covers(name, line, at[0], at[1]) {
			a.used++
			return true
		}
	}
	return false
}

func wordCount(line string) (n int) {
	for _, field := range strings.Fields(line) {
		if strings.ContainsFunc(field, unicode.IsLetter) {
			n++
		}
	}
	return n
}
