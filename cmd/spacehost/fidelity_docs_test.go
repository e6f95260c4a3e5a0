package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	gradioTable    = "../../docs/gradio.md"
	fidelityReport = "../../docs/fidelity.txt"
)

// gradioBehaviours are what clients rely on besides routes, messages and components. Each line of Gradio has them.
var gradioBehaviours = []string{
	"diffs of a generator", "an error", "an error with a title", "an error after a step", "a batch", "a join refused", "a full queue", "cancel", "unload at a session's end",
	"event data", "then and success", "JavaScript before a function", "JavaScript alone", "load", "a direct call", "session state", "State.change", "gr.render", "gr.Request",
	"upload", "files that may be had", "files that may not", "a range of a file", "auth", "auth_dependency", "OAuth", "mount_gradio_app", "CORS", "nothing there", "cached examples", "Examples",
}

// newBehaviours maps a behaviour to the lines of Gradio that have it; other lines lack it.
var newBehaviours = map[string]string{
	"a validator": "v5 v6", "streaming input (process_streaming)": "v5 v6", "HLS": "v5 v6", "MCP": "v5 v6", "pages": "v5 v6", "gr.cache": "v6", "gr.Server": "v6", "a template of gr.HTML": "v6",
	"a stream of bytes": "v4", "a websocket": "v5",
}

// inventory lists the routes, messages and components of a line of Gradio.
type inventory struct {
	Routes     []string `json:"routes"`
	Messages   []string `json:"messages"`
	Components []string `json:"components"`
}

func takeInventory(t *testing.T, line string) (found inventory) {
	t.Helper()
	cmd := exec.Command(environmentOf(t, line), filepath.Join(fidelityDir, "inventory.py"))
	cmd.Env = append(os.Environ(), "GRADIO_ANALYTICS_ENABLED=False", "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil || len(found.Routes) < 30 || len(found.Messages) < 9 || len(found.Components) < 50 {
		t.Fatalf("inventory of %s: %v in %s", line, err, out)
	}
	return found
}

// covered returns the names of the cases that exercise an item, by item and line.
func covered() map[string]map[string][]string {
	all := map[string]map[string][]string{}
	for _, c := range fidelityCases {
		for _, item := range strings.Split(c.covers, ", ") {
			if all[item] == nil {
				all[item] = map[string][]string{}
			}
			for line := range gradioVersions {
				if c.in(line) {
					all[item][line] = append(all[item][line], c.name)
				}
			}
		}
	}
	return all
}

// TestGradioTable reads the routes, messages and components of each line from the real Gradio. Each must have a case in
// fidelityCases for that line, and docs/gradio.md must list it. `make fidelity` writes docs/gradio.md.
func TestGradioTable(t *testing.T) {
	cases := covered()
	lines := slices.Sorted(maps.Keys(gradioVersions))
	sections := tableSections(t, cases, lines)
	table := formatTable(t, sections, cases, lines)
	for item := range cases {
		if !slices.ContainsFunc(sections, func(s tableSection) bool { return s.has[item] != nil }) {
			t.Errorf("a case covers %q, which no line of Gradio has", item)
		}
	}
	if isFidelity() {
		if err := os.WriteFile(gradioTable, []byte(table), 0o644); err != nil {
			t.Error(err)
		}
		return
	}
	if kept, err := os.ReadFile(gradioTable); err != nil || string(kept) != table {
		t.Errorf("%s does not match the cases (%v); run make fidelity-table", gradioTable, err)
	}
}

// tableSection is a section of docs/gradio.md.
type tableSection struct {
	title string
	of    func(inventory) []string
	has   map[string]map[string]bool // by item, in which line
}

// tableSections reads the items of each section from the real Gradio of each line.
func tableSections(t *testing.T, cases map[string]map[string][]string, lines []string) []tableSection {
	t.Helper()
	sections := []tableSection{
		{"Routes", func(i inventory) []string { return i.Routes }, map[string]map[string]bool{}},
		{"Messages", func(i inventory) []string { return i.Messages }, map[string]map[string]bool{}},
		{"Components", func(i inventory) []string { return i.Components }, map[string]map[string]bool{}},
		{"What clients rely on besides", nil, map[string]map[string]bool{}},
	}
	for _, line := range lines {
		found := takeInventory(t, line)
		for _, section := range sections[:3] {
			for _, item := range section.of(found) {
				add(section.has, prefixed(item, cases), line)
			}
		}
		for _, item := range gradioBehaviours {
			add(sections[3].has, item, line)
		}
		for item, of := range newBehaviours {
			if strings.Contains(of, line) {
				add(sections[3].has, item, line)
			}
		}
	}
	return sections
}

// formatTable returns the text of docs/gradio.md.
func formatTable(t *testing.T, sections []tableSection, cases map[string]map[string][]string, lines []string) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprint(&out, gradioTableHead)
	for _, section := range sections {
		fmt.Fprintf(&out, "\n## %s\n\n| |", section.title)
		for _, line := range lines {
			fmt.Fprintf(&out, " %s |", gradioVersions[line])
		}
		fmt.Fprintf(&out, "\n|---|%s\n", strings.Repeat("---|", len(lines)))
		for _, item := range slices.Sorted(maps.Keys(section.has)) {
			fmt.Fprintf(&out, "| %s |", item)
			for _, line := range lines {
				fmt.Fprintf(&out, " %s |", cell(t, item, line, section.has[item][line], cases[item][line]))
			}
			fmt.Fprintln(&out)
		}
	}
	return out.String()
}

const gradioTableHead = `# Gradio compatibility: cases by route, message and component

Each case is an app of cmd/spacehost/testdata/fidelity, called through spacehost and through stock Gradio by the
Python client, the JavaScript client, a browser or plain requests. Both answers are equal, except for what the masks
in cmd/spacehost/fidelity_test.go name. [fidelity.txt](fidelity.txt) has the last run, and
[concepts.md](concepts.md#differences-from-stock-gradio) lists intended differences. ` + "`A`" + ` is /gradio_api in Gradio 5
and 6, and empty in Gradio 4. ` + "`make fidelity-table`" + ` generates this page; a test compares it with the installed Gradio
releases.
`

func add(has map[string]map[string]bool, item, line string) {
	if has[item] == nil {
		has[item] = map[string]bool{}
	}
	has[item][line] = true
}

// prefixed writes a route of Gradio 4 with the prefix A if later lines have it below their prefix.
func prefixed(item string, cases map[string]map[string][]string) string {
	if method, path, ok := strings.Cut(item, " "); ok && strings.HasPrefix(path, "/") && cases[item] == nil {
		return method + " A" + path
	}
	return item
}

func cell(t *testing.T, item, line string, has bool, names []string) string {
	switch {
	case !has:
		return gradioVersions[line] + " has none"
	case len(names) == 0:
		t.Errorf("no case covers %s of gradio %s", item, gradioVersions[line])
		return ""
	case len(names) > 4:
		return strings.Join(names[:4], ", ") + fmt.Sprintf(" and %d more", len(names)-4)
	}
	return strings.Join(names, ", ")
}

// writeFidelity writes docs/fidelity.txt: one row per case and line of Gradio, and totals. Parts that this run skipped keep
// their earlier results.
func writeFidelity(t *testing.T, report map[string]verdicts) {
	t.Helper()
	parts := map[string]string{}
	before, _ := os.ReadFile(fidelityReport) // absent before the first run
	for part := range strings.SplitSeq(string(before), "\n\n") {
		if title, _, ok := strings.Cut(part, " (gradio "); ok {
			parts[title] = part
		}
	}
	for title, found := range report {
		if len(found) > 0 {
			parts[title] = reported(title, found, parts[title])
		}
	}
	out := "What `make fidelity` found: each case through spacehost and through stock Gradio. Made by it; do not edit.\n\n"
	for _, title := range slices.Sorted(maps.Keys(parts)) {
		out += strings.TrimSpace(parts[title]) + "\n\n"
	}
	count := func(result string) int {
		return strings.Count(out, " "+result+",") + strings.Count(out, " "+result+"\n")
	}
	out += fmt.Sprintf("%d comparisons are equal, %d unlike stock on purpose, %d differ, %d fail\n", count("equal"), count("unlike stock on purpose"), count("differs"), count("fails"))
	if err := os.WriteFile(fidelityReport, []byte(out), 0o644); err != nil {
		t.Error(err)
	}
}

var reportedRow = regexp.MustCompile(`(?m)^  (.{56,}?) ((?:http|python|javascript|browser) .*)$`)

// reported returns the report of one line of Gradio. Ways of calling that this run skipped keep their earlier results.
func reported(title string, found verdicts, before string) string {
	results := map[string]map[string]string{} // by case and way
	for _, c := range fidelityCases {
		results[c.page+" "+c.name] = map[string]string{}
	}
	note := func(name, one string) {
		way, result, _ := strings.Cut(one, " ")
		if results[name] == nil {
			results[name] = map[string]string{}
		}
		results[name][way] = result
	}
	for _, row := range reportedRow.FindAllStringSubmatch(before, -1) {
		for one := range strings.SplitSeq(row[2], ", ") {
			note(strings.TrimSpace(row[1]), one)
		}
	}
	for name, all := range found {
		for _, one := range all {
			note(name, one)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s (gradio %s)\n", title, gradioVersions[title[:2]])
	for _, name := range slices.Sorted(maps.Keys(results)) {
		row := "not in this line"
		if len(results[name]) > 0 {
			var all []string
			for _, way := range slices.Sorted(maps.Keys(results[name])) {
				all = append(all, way+" "+results[name][way])
			}
			row = strings.Join(all, ", ")
		}
		fmt.Fprintf(&out, "  %-56s %s\n", name, row)
	}
	return out.String()
}
