package space

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Finding is one statement about a Space's files for its author.
type Finding struct {
	Code Code
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
	// Note is set for what is worth knowing and no reason to change the file. Open does not warn of it.
	Note bool
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
	m, _, _ := examine(readme, ".")
	return m.sorted()
}

// examine returns the front matter with its findings, and the Space, or the error with which Open refuses it.
func examine(readme []byte, dir string) (m *frontMatter, s *Space, err error) {
	if m, err = parse(readme); err == nil {
		s, err = m.space(dir)
	}
	if m == nil {
		m = &frontMatter{}
	}
	if wrong, ok := errors.AsType[*ConfigError](err); ok {
		m.add(Finding{Code: wrong.Code, Line: wrong.Line, Key: wrong.Key, Refused: !wrong.Own, Problem: wrong.Problem, Fix: wrong.Next})
	}
	return m, s, err
}

// checkPackages lists the Debian packages of a packages.txt (hub-docs, spaces-dependencies.md).
func checkPackages(packages []byte) []Finding {
	var names []string
	first := 0
	for i, line := range strings.Split(unixLines(packages), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if names = append(names, strings.Fields(line)...); first == 0 && len(names) > 0 {
			first = i + 1
		}
	}
	if first == 0 {
		return nil
	}
	return []Finding{{Code: DebianPackages, File: packagesName, Line: first, Note: true,
		Problem: fmt.Sprintf("the Hub installs the Debian packages %s, and spacehost does not", strings.Join(names, ", ")),
		Fix:     "install the missing ones with apt before `spacehost run`"}}
}

// Checked is the result of CheckDir.
type Checked struct {
	Dir      string    // absolute
	Findings []Finding // ordered by file and line
	// Refused is the error with which Open refuses the Space: a *ConfigError or an *AppFileError. nil if it does not.
	Refused error
	// AppFile is the app file relative to Dir, with the separators of the system; "" if there is none.
	AppFile string
	// Space describes the Space as far as README.md can be understood; nil if it cannot. Its app file may be missing.
	Space *Space
	// HasReadme, HasRequirements and HasPackages report which files exist.
	HasReadme, HasRequirements, HasPackages bool
}

// CheckDir checks the README.md, the requirements.txt, the packages.txt and the app file of a Space's folder. Its error is a *FolderError or
// a *ConfigError: a file that cannot be read.
func CheckDir(dir string) (*Checked, error) {
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
	packages, err := readText(dir, packagesName)
	if err != nil {
		return nil, err
	}
	c := &Checked{Dir: dir, HasReadme: readme != nil, HasRequirements: requirements != nil, HasPackages: packages != nil}
	var m *frontMatter
	m, c.Space, c.Refused = examine(readme, dir)
	c.checkAppFile(m)
	c.Findings = append(m.sorted(), CheckRequirements(requirements)...)
	if c.Space != nil {
		c.Findings = append(c.Findings, checkPins(requirements, c.Space.SDKVersion)...)
	}
	c.Findings = append(c.Findings, checkPackages(packages)...)
	slices.SortStableFunc(c.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) })
	return c, nil
}

// checkAppFile sets AppFile. README.md without usable keys leaves the default.
func (c *Checked) checkAppFile(m *frontMatter) {
	name := defaultAppFile
	if c.Space != nil {
		name = c.Space.AppFile
	}
	err := checkAppFile(c.Dir, name, m.line("app_file"))
	wrong, ok := errors.AsType[*AppFileError](err)
	if !ok {
		c.AppFile = name
		return
	}
	if c.Refused == nil {
		c.Refused = err
	}
	m.add(Finding{Code: BadAppFile, Line: wrong.Line, Key: "app_file", Hub: string(NoAppFile), Problem: wrong.problem("the Space"), Fix: wrong.next()})
}

// add adds a finding about README.md.
func (m *frontMatter) add(f Finding) {
	f.File = "README.md"
	m.findings = append(m.findings, f)
}

// warn adds a finding that is not Refused.
func (m *frontMatter) warn(code Code, line int, key, problem, fix string) {
	m.add(Finding{Code: code, Line: line, Key: key, Problem: problem, Fix: fix})
}

// refuse adds a finding that is Refused. hub holds the Hub's words, and is the problem too if that is empty.
func (m *frontMatter) refuse(key, hub, problem, fix string) {
	if problem == "" {
		problem = hub
	}
	m.add(Finding{Code: RefusedValue, Line: m.line(key), Key: key, Refused: true, Hub: hub, Problem: problem, Fix: fix})
}

// sorted returns the findings ordered by line.
func (m *frontMatter) sorted() []Finding {
	slices.SortStableFunc(m.findings, func(a, b Finding) int { return a.Line - b.Line })
	return m.findings
}

func sentences(findings []Finding) []string {
	var all []string
	for _, f := range findings {
		if !f.Note {
			all = append(all, f.String())
		}
	}
	return all
}
