package check

import "fmt"

// Severity is the weight of a Finding.
type Severity string

// The severities. Info fails a check only if that is requested.
const (
	Error   Severity = "error"   // fails on ZeroGPU
	Warning Severity = "warning" // may fail, or differs from what the author expects
	Info    Severity = "info"    // worth knowing
)

// Stage is the earliest step of a check that can find something.
type Stage string

// The stages, in their order.
const (
	StageRead  Stage = "read"  // files only
	StageBuild Stage = "build" // the environment was built
	StageRun   Stage = "run"   // the Space was started once
	StageCall  Stage = "call"  // its endpoints were called
)

// Fact is one observation of a stage: a Rule's identifier, a place, and the values of the Rule's texts. The Python reader
// and the runner print Facts as JSON.
type Fact struct {
	Rule string `json:"rule"`
	File string `json:"file,omitempty"` // relative to the Space's folder, with slashes; "": the Space as a whole
	Line int    `json:"line,omitempty"` // from 1; 0: the whole file
	// Values replace the {name} of the Rule's texts.
	Values map[string]string `json:"values,omitempty"`
	// Severity overrides the Rule's, where the same Rule is certain in one place and a guess in another.
	Severity Severity `json:"severity,omitempty"`
}

// Finding is one place at which a Rule applies, in words.
type Finding struct {
	ID       string   `json:"id"`
	Bucket   string   `json:"bucket"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"` // relative to the Space's folder, or after Report.Merge to the working folder, with slashes; "": the Space as a whole
	Line     int      `json:"line"` // from 1; 0: the whole file
	Text     string   `json:"text"` // what is there, and what happens on ZeroGPU
	Fix      string   `json:"fix"`  // an imperative
	Stage    Stage    `json:"stage"`
	// Fingerprint identifies the finding in a baseline and in code scanning. Report.Apply sets it.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Values are those of the Fact.
	Values map[string]string `json:"-"`
	// folder: File is the folder of one of several Spaces, about which the finding is.
	folder bool
}

// Place returns "app.py:12", "README.md" or, for the Space as a whole, ".".
func (f Finding) Place() string {
	switch {
	case f.File == "":
		return "."
	case f.Line == 0:
		return f.File
	}
	return fmt.Sprintf("%s:%d", f.File, f.Line)
}
