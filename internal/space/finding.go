package space

import (
	"errors"
	"fmt"
	"slices"
)

// Finding is one statement about a Space's files for its author.
type Finding struct {
	File string // README.md or requirements.txt
	Line int    // from 1; 0: of the whole file
	Key  string // of the front matter; empty for a finding about no single key
	// Refused is set if the Hub does not accept the README.md: git push and uploads fail, and POST /api/validate-yaml
	// answers 400. Other findings are warnings: the Hub takes the file, and ignores the value or fails later.
	Refused bool
	// Hub holds the Hub's own words, as quoted in public logs. It is empty where they are not known.
	Hub     string
	Problem string
	Fix     string // an imperative, or a question; may be empty
}

// String returns the sentence that `spacehost run` prints.
func (f Finding) String() string {
	text := f.Problem
	if f.Refused {
		text = "the Hub refuses this file: " + text
	}
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	if f.Line > 0 {
		text = fmt.Sprintf("%s line %d: %s", f.File, f.Line, text)
	}
	return text
}

// Message returns the text for the answer of POST /api/validate-yaml: the Hub's words where they are known.
func (f Finding) Message() string {
	if f.Hub != "" {
		return f.Hub
	}
	return f.Problem
}

// Check checks the text of a README.md by the rules of Keys. A *ConfigError of Open is a Finding
// too, Refused unless the Hub accepts the value. The result is ordered by line. It may be called from any goroutine.
func Check(readme []byte) []Finding {
	if readme == nil {
		readme = []byte{}
	}
	m, err := parse(readme)
	if err == nil {
		_, err = m.space(".")
	}
	if m == nil {
		m = &frontMatter{}
	}
	if wrong, ok := errors.AsType[*ConfigError](err); ok {
		m.add(Finding{Line: wrong.Line, Key: wrong.Key, Refused: !wrong.Own, Problem: wrong.Problem, Fix: wrong.Next})
	}
	return m.sorted()
}

// CheckDir checks the README.md and the requirements.txt of a Space's folder. Its error is a *FolderError or a
// *ConfigError: a file that cannot be read.
func CheckDir(dir string) ([]Finding, error) {
	dir, err := folder(dir)
	if err != nil {
		return nil, err
	}
	readme, err := readText(dir, "README.md")
	if err != nil {
		return nil, err
	}
	requirements, err := readText(dir, requirementsName)
	if err != nil {
		return nil, err
	}
	if readme == nil {
		m, _ := parse(nil) // a missing file is no error
		return append(m.sorted(), CheckRequirements(requirements)...), nil
	}
	return append(Check(readme), CheckRequirements(requirements)...), nil
}

// add adds a finding about README.md.
func (m *frontMatter) add(f Finding) {
	f.File = "README.md"
	m.findings = append(m.findings, f)
}

// warn adds a finding that is not Refused.
func (m *frontMatter) warn(line int, key, problem, fix string) {
	m.add(Finding{Line: line, Key: key, Problem: problem, Fix: fix})
}

// refuse adds a finding that is Refused. hub holds the Hub's words, and is the problem too if that is empty.
func (m *frontMatter) refuse(key, hub, problem, fix string) {
	if problem == "" {
		problem = hub
	}
	m.add(Finding{Line: m.line(key), Key: key, Refused: true, Hub: hub, Problem: problem, Fix: fix})
}

// sorted returns the findings ordered by line.
func (m *frontMatter) sorted() []Finding {
	slices.SortStableFunc(m.findings, func(a, b Finding) int { return a.Line - b.Line })
	return m.findings
}

func sentences(findings []Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, f.String())
	}
	return all
}
