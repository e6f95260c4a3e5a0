package check

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
)

// The report of GitLab's Code Quality (docs.gitlab.com, "Code Quality report format"): one list of these.
type gitlabIssue struct {
	Description string         `json:"description"`
	Check       string         `json:"check_name"`
	Fingerprint string         `json:"fingerprint"` // GitLab shows issues with the same one once
	Severity    string         `json:"severity"`
	Location    gitlabLocation `json:"location"`
}

type gitlabLocation struct {
	Path  string      `json:"path"` // from the root of the repository, without ./
	Lines gitlabLines `json:"lines"`
}

type gitlabLines struct {
	Begin int `json:"begin"`
}

// gitlabSeverities are GitLab's words. It also has minor and blocker.
var gitlabSeverities = map[Severity]string{Error: "critical", Warning: "major", Info: "info"}

// writeGitLab puts a finding about the Space as a whole on its README.md, because an issue has a place in a file.
func (r *Report) writeGitLab(w io.Writer, v View) error {
	issues := []gitlabIssue{}
	for _, f := range r.Findings {
		file := v.file(f)
		if f.File == "" || f.folder {
			file = path.Join(file, "README.md")
		}
		sum := sha256.Sum256([]byte(file + "\x00" + f.Fingerprint)) // files of several Spaces may have equal lines
		issues = append(issues, gitlabIssue{f.sentence(), f.ID, hex.EncodeToString(sum[:16]), gitlabSeverities[f.Severity],
			gitlabLocation{file, gitlabLines{max(1, f.Line)}}})
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(issues)
}
