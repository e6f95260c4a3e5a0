package checkcli

import (
	"errors"
	"slices"
	"strings"

	"spacehost/internal/check"
)

// A duplicate of a Space on the Hub is private, has CPU hardware unless its owner asks for other, keeps the Variables, and loses
// the Secrets (hub-docs, spaces-overview.md, "Duplicating a Space").

// errNoStages reports a flag that has an effect on a start only.
var errNoStages = errors.New("it requires --run or --call")

// duplicator is what Stages implement for --as-duplicate: they refuse Secrets, and return the names of the given Variables.
type duplicator interface {
	Duplicate() (variables []string, err error)
}

// checkDuplicate finds mistakes in the flags of a duplicate.
func (o *options) checkDuplicate() (err error) {
	if d, ok := o.config.Stages.(duplicator); ok && o.duplicate {
		o.variables, err = d.Duplicate()
	}
	return err
}

// asDuplicate gives the findings about missing variables the weight that they have in a duplicate, where they are Secrets that
// nothing sets.
func (o *options) asDuplicate(report *check.Report) {
	for i := range report.Findings {
		f := &report.Findings[i]
		given := slices.ContainsFunc(o.variables, func(name string) bool { return strings.Contains(f.Text, " "+name+" ") })
		switch {
		case f.ID != "B601" && f.ID != "B604":
		case given:
			f.Severity = check.Info
		case strings.Contains(f.Text, "at import"), strings.HasPrefix(f.Text, "the start "):
			f.Severity = check.Error
		}
	}
	hardware := "on CPU hardware"
	if !o.onCPU() {
		hardware = "on ZeroGPU"
	}
	report.LookedAt = append(report.LookedAt, "the Space as a duplicate has it: private, "+hardware+", with the given Variables and without Secrets")
}

// onCPU reports whether the start has no GPU: that of a duplicate, unless --hardware asks for one.
func (o *options) onCPU() bool { return o.duplicate && !o.hardwareGiven }
