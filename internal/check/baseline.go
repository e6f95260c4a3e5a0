package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Baseline is a set of accepted findings. The zero Baseline is empty.
type Baseline struct {
	Version  int             `json:"version"` // 1
	Findings []BaselineEntry `json:"findings"`
}

// BaselineEntry is one accepted finding. Only Fingerprint counts; the other fields are for a reader of the file.
type BaselineEntry struct {
	ID          string `json:"id"`
	File        string `json:"file"`
	Fingerprint string `json:"fingerprint"`
}

// baselineVersion is the version of the file and of the fingerprints in it.
const baselineVersion = 1

// ReadBaseline reads a file that WriteBaseline wrote.
func ReadBaseline(file string) (b Baseline, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("file %s does not exist; create it with --write-baseline %s", file, file)
	}
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("%s is not a baseline: %w; write it again with --write-baseline", file, err)
	}
	if b.Version != baselineVersion {
		return b, fmt.Errorf("%s has version %d, this program reads version %d; write it again with --write-baseline", file, b.Version, baselineVersion)
	}
	return b, nil
}

// WriteBaseline writes the findings of an applied Report as accepted.
func WriteBaseline(file string, r *Report) error {
	b := Baseline{Version: baselineVersion, Findings: []BaselineEntry{}}
	for _, f := range r.Findings {
		b.Findings = append(b.Findings, BaselineEntry{f.ID, f.File, f.Fingerprint})
	}
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

func (b Baseline) has(f Finding) bool {
	return slices.ContainsFunc(b.Findings, func(e BaselineEntry) bool { return e.Fingerprint == f.Fingerprint })
}
