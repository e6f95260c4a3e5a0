package checkcli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// matcher is the part of a task of VS Code that reads output (code.visualstudio.com/docs/debugtest/tasks, "Defining a problem
// matcher"). Its expressions use what JavaScript and Go have in common.
type matcher struct {
	Pattern struct {
		Kind                                string
		Regexp                              string
		File, Line, Severity, Code, Message int
	}
}

// TestProblemMatcher reads the text format with the expressions of examples/vscode. Each finding has one match, and no other
// line has any.
func TestProblemMatcher(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../examples/vscode/tasks.json"))
	if err != nil {
		t.Fatal(err)
	}
	var tasks struct {
		Tasks []struct {
			Command        string
			ProblemMatcher []matcher
		}
	}
	if err := json.Unmarshal(text, &tasks); err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"README.md": readme + "licence: mit\n---\n", "app.py": app, "requirements.txt": "torch==2.4.0\n"})
	bare := write(t, map[string]string{"app.py": app}) // a finding without a line
	if err := os.Rename(bare, filepath.Join(dir, "bare2")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	args := strings.Fields(tasks.Tasks[0].Command)[1:]
	found := ""
	for _, args := range [][]string{args, append(args, "bare2")} {
		for line := range strings.Lines(run(args...).out) {
			line = strings.TrimSuffix(line, "\n")
			for _, m := range tasks.Tasks[0].ProblemMatcher {
				groups := regexp.MustCompile(m.Pattern.Regexp).FindStringSubmatch(line)
				if groups == nil {
					continue
				}
				place := groups[m.Pattern.File]
				if m.Pattern.Kind != "file" {
					place += "#" + groups[m.Pattern.Line]
				}
				found += strings.Join([]string{place, groups[m.Pattern.Severity], groups[m.Pattern.Code], groups[m.Pattern.Message][:12]}, "|") + "\n"
			}
		}
	}
	const want = `README.md#6|warning|A107|unknown key 
requirements.txt#1|error|A201|ZeroGPU has 
bare2/README.md|warning|A100|README.md is
`
	if found != want {
		t.Errorf("got\n%s\nwant\n%s", found, want)
	}
}
