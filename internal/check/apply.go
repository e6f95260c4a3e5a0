package check

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Ignore is a comment `# spacehost: ignore[F308, G314]` in a file of the Space.
type Ignore struct {
	File string   `json:"file"`         // relative to the Space's folder, with slashes
	Line int      `json:"line"`         // of the findings that it covers
	At   int      `json:"at,omitempty"` // of the comment, where it stands on a line of its own; 0: Line
	IDs  []string `json:"ids"`          // identifiers of rules, or prefixes of them
}

// covers reports whether the comment is about f.
func (i Ignore) covers(f Finding) bool {
	return i.File == f.File && i.Line == f.Line && matches(f.ID, i.IDs)
}

// Filter chooses the findings that a Report shows.
type Filter struct {
	Dir      string   // the Space's folder
	Select   []string // identifiers or prefixes; empty: all rules
	Ignore   []string // identifiers or prefixes
	Baseline Baseline
}

// Apply gives each Finding its fingerprint, and removes those that the filter or a comment excludes. It adds one Finding
// for each comment that excludes nothing, if the stages that the comment's rules need were performed. It is called once,
// after all stages.
func (r *Report) Apply(f Filter) error {
	r.fingerprints(f.Dir)
	used := make([]bool, len(r.Ignores))
	r.Findings = slices.DeleteFunc(r.Findings, func(found Finding) bool {
		for i, comment := range r.Ignores {
			if comment.covers(found) {
				used[i] = true
				r.Ignored++
				return true
			}
		}
		return false
	})
	for i, comment := range r.Ignores {
		if problem := r.unused(comment); !used[i] && problem != "" {
			if err := r.Add(StageRead, Fact{Rule: "S690", File: comment.File, Line: cmp.Or(comment.At, comment.Line), Values: map[string]string{"problem": problem}}); err != nil {
				return err
			}
		}
	}
	r.fingerprints(f.Dir)
	r.Findings = slices.DeleteFunc(r.Findings, func(found Finding) bool {
		switch {
		case len(f.Select) > 0 && !matches(found.ID, f.Select), matches(found.ID, f.Ignore):
			return true
		case f.Baseline.has(found):
			r.Known++
			return true
		}
		return false
	})
	return nil
}

// unused explains why a comment excludes nothing; "" if a stage that was not performed may yet find something.
func (r *Report) unused(comment Ignore) string {
	for _, id := range comment.IDs {
		known := false
		for _, rule := range Rules() {
			if !strings.HasPrefix(rule.ID, id) {
				continue
			}
			known = true
			if slices.ContainsFunc(rule.Stages, func(s Stage) bool { return !slices.Contains(r.Performed, s) }) {
				return ""
			}
		}
		if !known {
			return fmt.Sprintf("ignore[%s] names no rule", id)
		}
	}
	return fmt.Sprintf("ignore[%s] excludes nothing", strings.Join(comment.IDs, ", "))
}

// matches reports whether id is, or begins with, one of the prefixes.
func matches(id string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return prefix != "" && strings.HasPrefix(id, prefix) })
}

// fingerprints identifies each finding by its rule, its file and the text of its line, so that it survives other lines
// that move. Equal findings are counted. Text of the finding is no part: it names versions and other lines.
func (r *Report) fingerprints(dir string) {
	sources := map[string][]string{}
	seen := map[string]int{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if _, read := sources[f.File]; !read && f.File != "" {
			sources[f.File] = sourceLines(dir, f.File)
		}
		line := ""
		if lines := sources[f.File]; f.Line > 0 && f.Line <= len(lines) {
			line = strings.Join(strings.Fields(lines[f.Line-1]), " ")
		}
		key := strings.Join([]string{f.ID, f.File, line}, "\x00")
		seen[key]++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", key, seen[key]))
		f.Fingerprint = hex.EncodeToString(sum[:16])
	}
}

// sourceLines returns the lines of a file of the Space, nil if it cannot be read.
func sourceLines(dir, file string) (lines []string) {
	if !filepath.IsLocal(filepath.FromSlash(file)) {
		return nil
	}
	source, err := os.Open(filepath.Join(dir, filepath.FromSlash(file)))
	if err != nil {
		return nil
	}
	defer source.Close()
	if info, err := source.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	scanner := bufio.NewScanner(io.LimitReader(source, maxSource))
	scanner.Buffer(nil, maxSource)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	return lines
}

// maxSource limits how much of a file is read for its lines.
const maxSource = 16 << 20
