package check

import (
	"cmp"
	"fmt"
	"slices"
)

// Report is the result of a check. It is used by one goroutine at a time.
type Report struct {
	Findings []Finding `json:"findings"`
	// LookedAt and NotLookedAt are sentences: what was examined, and what was not, with the reason or the flag that would.
	LookedAt    []string `json:"looked_at"`
	NotLookedAt []string `json:"not_looked_at"`

	// Performed are the stages that looked. Read sets StageRead; the performer of another stage appends its own.
	Performed []Stage `json:"-"`
	// Stop is the error with which `spacehost run` would refuse the Space: a *space.ConfigError or *space.AppFileError. The
	// Findings describe it too.
	Stop error `json:"-"`
	// Unread is why the Python was not read although there is an interpreter: the check is incomplete. nil: it was read.
	Unread error `json:"-"`
	// Inventory is what stage read knows about the app, for the later stages; nil if the app file could not be read.
	Inventory *Inventory `json:"-"`
	// Ignores are the comments that exclude findings. Apply uses them.
	Ignores []Ignore `json:"-"`
	// Ignored and Known are the numbers of findings that Apply removed because of comments and of the baseline.
	Ignored int `json:"-"`
	Known   int `json:"-"`
}

// Add adds what a stage has observed. A Fact of a rule and place that the Report has already is dropped: the stage that
// comes first describes it. An unknown rule is an error of the stage's code.
func (r *Report) Add(stage Stage, facts ...Fact) error {
	for _, fact := range facts {
		rule, ok := RuleByID(fact.Rule)
		if !ok {
			return fmt.Errorf("stage %s reports the unknown rule %q", stage, fact.Rule)
		}
		found := rule.finding(fact, stage)
		same := func(f Finding) bool {
			return f.ID == found.ID && f.File == found.File && f.Line == found.Line && (f.Stage != stage || f.Text == found.Text)
		}
		if !slices.ContainsFunc(r.Findings, same) {
			r.Findings = append(r.Findings, found)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.ID, b.ID))
	})
	return nil
}

// Merge appends the applied Report of one of several Spaces. base is the Space's folder as View.Base has it, and precedes
// its files. A Space that `spacehost run` refuses, or that was not read, makes the whole so.
func (r *Report) Merge(other *Report, base string) {
	for _, f := range other.Findings {
		f.folder = f.File == ""
		f.File = below(base, f.File)
		r.Findings = append(r.Findings, f)
	}
	named := func(sentence string) string { return below(base, "") + ": " + sentence }
	for _, sentence := range other.LookedAt {
		r.LookedAt = append(r.LookedAt, named(sentence))
	}
	for _, sentence := range other.NotLookedAt {
		r.NotLookedAt = append(r.NotLookedAt, named(sentence))
	}
	if r.Stop == nil {
		r.Stop = other.Stop
	}
	if r.Unread == nil && other.Unread != nil {
		r.Unread = fmt.Errorf("%s: %w", below(base, ""), other.Unread)
	}
	r.Ignored, r.Known = r.Ignored+other.Ignored, r.Known+other.Known
}

// AtLeast returns the number of findings with at least this severity.
func (r *Report) AtLeast(least Severity) (n int) {
	order := []Severity{Info, Warning, Error}
	for _, f := range r.Findings {
		if slices.Index(order, f.Severity) >= slices.Index(order, least) {
			n++
		}
	}
	return n
}
