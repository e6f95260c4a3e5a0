package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Markdown returns the rule's page: its title, the facts of its front matter, and its text.
func (r Rule) Markdown() string {
	var page strings.Builder
	fmt.Fprintf(&page, "# %s: %s\n\n", r.ID, r.Title)
	page.WriteString(r.facts() + "\n\n")
	page.WriteString(r.Page)
	page.WriteString("\nRests on:\n\n")
	for _, source := range r.Sources {
		fmt.Fprintf(&page, "- %s\n", source)
	}
	return page.String()
}

// facts returns what the front matter states besides the title, in one line.
func (r Rule) facts() string {
	return fmt.Sprintf("Severity: %s. Bucket: %s, %s. Found by: %s.", r.Severity, r.Bucket(), Buckets[r.Bucket()], r.StageNames())
}

// StageNames lists the stages that can find the rule, for people.
func (r Rule) StageNames() string {
	var stages []string
	for _, stage := range r.Stages {
		stages = append(stages, string(stage))
	}
	return strings.Join(stages, ", ")
}

// BucketLetters returns the letters of Buckets in their order.
func BucketLetters() []string { return slices.Sorted(maps.Keys(Buckets)) }

// Buckets are the kinds of failure, by their letters.
var Buckets = map[string]string{
	"A": "the Space is stuck in its build or start",
	"B": "the Space runs, but differs",
	"C": "quota or identity is wrong",
	"D": "the browser works and the API fails",
	"E": "CUDA is used before `import spaces`",
	"F": `"No CUDA GPUs are available"`,
	"G": "the worker fails",
	"H": "a duration is refused",
	"S": "the source itself is broken",
}

// Plain returns Markdown for a terminal. Fenced code is indented, and headings and emphasis lose their marks.
func (r Rule) Plain() string {
	var page strings.Builder
	code := false
	for line := range strings.Lines(r.Markdown()) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			code = !code
			continue
		case code && line != "":
			line = "    " + line
		case !code:
			line = strings.TrimLeft(line, "# ")
			line = strings.ReplaceAll(line, "**", "")
		}
		page.WriteString(line + "\n")
	}
	return page.String()
}
