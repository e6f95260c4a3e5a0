package check

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"spacehost/internal/printable"
)

// Formats are the names of the formats of Write.
var Formats = []string{"text", "json", "sarif", "junit", "github", "gitlab"}

// View is how a Report is written.
type View struct {
	// Base is the path of the Space's folder from the working folder, or an absolute one, with slashes; "": the working folder
	// itself. It precedes the files in every format but JSON.
	Base string
	// Root is the absolute path of the working folder, for SARIF.
	Root    string
	Version string // of this program
	Color   bool
	Took    time.Duration
}

// place is Finding.Place as seen from the working folder.
func (v View) place(f Finding) string {
	if f.File == "" {
		return v.file(f)
	}
	f.File = v.file(f)
	return f.Place()
}

// file is the path of a finding's file from the working folder. A finding about the Space as a whole has its folder.
func (v View) file(f Finding) string { return below(v.Base, f.File) }

// below is a path in the folder base, which may be absolute; "" is the working folder.
func below(base, file string) string { return path.Join(cmp.Or(base, "."), file) }

// Write writes the Report in one of Formats.
func (r *Report) Write(w io.Writer, format string, v View) error {
	switch format {
	case "text":
		return r.writeText(w, v)
	case "json":
		return r.writeJSON(w)
	case "sarif":
		return r.writeSARIF(w, v)
	case "junit":
		return r.writeJUnit(w, v)
	case "github":
		return r.writeGitHub(w, v)
	case "gitlab":
		return r.writeGitLab(w, v)
	}
	return fmt.Errorf("unknown format %q; use %s", format, strings.Join(Formats, ", "))
}

func (r *Report) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct { // lists are never null
		Findings    []Finding `json:"findings"`
		LookedAt    []string  `json:"looked_at"`
		NotLookedAt []string  `json:"not_looked_at"`
	}{append([]Finding{}, r.Findings...), append([]string{}, r.LookedAt...), append([]string{}, r.NotLookedAt...)})
}

// colors of severities (ECMA-48 SGR).
var colors = map[Severity]string{Error: "\x1b[31;1m", Warning: "\x1b[33;1m", Info: "\x1b[36m"}

// writeText writes for people: two lines per finding, a blank line between files, and a summary. Texts of the Space must
// not contain control characters; see Sanitize.
func (r *Report) writeText(w io.Writer, v View) error {
	var page strings.Builder
	last := ""
	for i, f := range r.Findings {
		if i > 0 && f.File != last {
			page.WriteByte('\n')
		}
		last = f.File
		severity := string(f.Severity)
		if v.Color {
			severity = colors[f.Severity] + severity + "\x1b[0m"
		}
		fmt.Fprintf(&page, "%s: %s %s %s\n", v.place(f), severity, f.ID, f.Text)
		if f.Fix != "" {
			fmt.Fprintf(&page, "    Fix: %s", ended(f.Fix))
		} else {
			page.WriteString("   ")
		}
		fmt.Fprintf(&page, "  docs: spacehost explain-rule %s\n", f.ID)
	}
	if len(r.Findings) > 0 {
		page.WriteByte('\n')
	}
	page.WriteString(r.Summary(v.Took) + "\n")
	_, err := io.WriteString(w, page.String())
	return err
}

// Sanitize makes each text one line without control characters, for a terminal.
func (r *Report) Sanitize() {
	for i := range r.Findings {
		f := &r.Findings[i]
		f.File, f.Text, f.Fix = printable.Line(f.File), printable.Line(f.Text), printable.Line(f.Fix)
	}
	for _, list := range [][]string{r.LookedAt, r.NotLookedAt} {
		for i := range list {
			list[i] = printable.Line(list[i])
		}
	}
}

// Summary returns the numbers of findings, and what was and was not looked at.
func (r *Report) Summary(took time.Duration) string {
	var counts []string
	for _, severity := range []Severity{Error, Warning, Info} {
		n := 0
		for _, f := range r.Findings {
			if f.Severity == severity {
				n++
			}
		}
		if n > 0 || severity != Info {
			counts = append(counts, plural(n, string(severity)))
		}
	}
	text := fmt.Sprintf("%s in %.2f s.", strings.Join(counts, ", "), took.Seconds())
	if r.Ignored > 0 {
		text += fmt.Sprintf(" %s excluded by comments.", plural(r.Ignored, "finding"))
	}
	if r.Known > 0 {
		text += fmt.Sprintf(" %s of the baseline.", plural(r.Known, "finding"))
	}
	for _, list := range []struct {
		head  string
		items []string
	}{{"Looked at", r.LookedAt}, {"Not looked at", r.NotLookedAt}} {
		var items []string
		for _, item := range list.items { // they contain names of files, which must not begin a workflow command
			items = append(items, printable.Line(item))
		}
		if len(items) > 0 {
			text += fmt.Sprintf("\n%s: %s.", list.head, strings.Join(items, "; "))
		}
	}
	return text
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// writeGitHub writes workflow commands, from which GitHub Actions makes annotations
// (docs.github.com, "Workflow commands for GitHub Actions"), and the summary as text.
func (r *Report) writeGitHub(w io.Writer, v View) error {
	var page strings.Builder
	for _, f := range r.Findings {
		command := map[Severity]string{Error: "error", Warning: "warning", Info: "notice"}[f.Severity]
		properties := []string{"title=" + property.Replace(f.ID)}
		if f.File != "" && !f.folder {
			properties = slices.Insert(properties, 0, "file="+property.Replace(v.file(f)))
			if f.Line > 0 {
				properties = slices.Insert(properties, 1, fmt.Sprintf("line=%d", f.Line))
			}
		}
		fmt.Fprintf(&page, "::%s %s::%s\n", command, strings.Join(properties, ","), message.Replace(f.sentence()))
	}
	page.WriteString(r.Summary(v.Took) + "\n")
	_, err := io.WriteString(w, page.String())
	return err
}

// The escapes of workflow commands (actions/toolkit, packages/core/src/command.ts).
var (
	message  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// sentence returns the text of a finding and its fix.
func (f Finding) sentence() string {
	if f.Fix == "" {
		return f.Text
	}
	return fmt.Sprintf("%s Fix: %s", ended(f.Text), ended(f.Fix))
}

// ended returns a sentence with a sign at its end.
func ended(text string) string {
	if text == "" || strings.ContainsAny(text[len(text)-1:], ".?!") {
		return text
	}
	return text + "."
}
