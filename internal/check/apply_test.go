package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// report returns a report of F315 at these lines of app.py.
func report(t *testing.T, ignores []Ignore, lines ...int) *Report {
	t.Helper()
	r := &Report{Performed: []Stage{StageRead, StageBuild, StageRun, StageCall}, Ignores: ignores}
	for _, line := range lines {
		if err := r.Add(StageRead, Fact{Rule: "F315", File: "app.py", Line: line}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestApply(t *testing.T) {
	dir := write(t, map[string]string{"app.py": "a\nb\nc\nd\n"})
	for name, row := range map[string]struct {
		ignores []Ignore
		filter  Filter
		want    string
	}{
		"all":               {nil, Filter{}, "F315:1:error F315:3:error"},
		"comment":           {[]Ignore{{File: "app.py", Line: 3, IDs: []string{"F315"}}}, Filter{}, "F315:1:error"},
		"prefix":            {[]Ignore{{File: "app.py", Line: 3, IDs: []string{"G314", "F"}}}, Filter{}, "F315:1:error"},
		"unused comment":    {[]Ignore{{File: "app.py", Line: 4, IDs: []string{"F315"}}}, Filter{}, "F315:1:error F315:3:error S690:4:info"},
		"unused, own line":  {[]Ignore{{File: "app.py", Line: 5, At: 4, IDs: []string{"F315"}}}, Filter{}, "F315:1:error F315:3:error S690:4:info"},
		"other file":        {[]Ignore{{File: "b.py", Line: 3, IDs: []string{"F315"}}}, Filter{}, "F315:1:error F315:3:error S690:3:info"},
		"unknown rule":      {[]Ignore{{File: "app.py", Line: 3, IDs: []string{"F399"}}}, Filter{}, "F315:1:error F315:3:error S690:3:info"},
		"no rule":           {[]Ignore{{File: "app.py", Line: 3}}, Filter{}, "F315:1:error F315:3:error S690:3:info"},
		"select":            {nil, Filter{Select: []string{"A", "F31"}}, "F315:1:error F315:3:error"},
		"select others":     {nil, Filter{Select: []string{"A"}}, ""},
		"ignore":            {nil, Filter{Ignore: []string{"F3"}}, ""},
		"select and ignore": {nil, Filter{Select: []string{"F"}, Ignore: []string{"F315"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := report(t, row.ignores, 1, 3)
			row.filter.Dir = dir
			if err := r.Apply(row.filter); err != nil {
				t.Fatal(err)
			}
			if got := brief(r); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

// TestUnusedCommentOfALaterStage: F315 may yet be found by stage call.
func TestUnusedCommentOfALaterStage(t *testing.T) {
	r := report(t, []Ignore{{File: "app.py", Line: 4, IDs: []string{"F315"}}})
	r.Performed = []Stage{StageRead}
	if err := r.Apply(Filter{Dir: t.TempDir()}); err != nil || len(r.Findings) != 0 {
		t.Errorf("%s, %v", brief(r), err)
	}
}

// TestBaselineSurvivesMovedLines: accepted findings stay accepted when lines move or change their indent, and a second
// finding of the same text is new.
func TestBaselineSurvivesMovedLines(t *testing.T) {
	dir := write(t, map[string]string{"app.py": "x = 1\n    y = model(x)\n"})
	r := report(t, nil, 2)
	if err := r.Apply(Filter{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "baseline.json")
	if err := WriteBaseline(file, r); err != nil {
		t.Fatal(err)
	}
	baseline, err := ReadBaseline(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		source string
		lines  []int
		want   string
		known  int
	}{
		"same":    {"x = 1\n    y = model(x)\n", []int{2}, "", 1},
		"moved":   {"import os\n\nx = 1\n  y = model(x)\n", []int{4}, "", 1},
		"changed": {"x = 1\n    y = model(x + 1)\n", []int{2}, "F315:2:error", 0},
		"twice":   {"y = model(x)\ny = model(x)\n", []int{1, 2}, "F315:2:error", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"app.py": row.source})
			r := report(t, nil, row.lines...)
			if err := r.Apply(Filter{Dir: dir, Baseline: baseline}); err != nil {
				t.Fatal(err)
			}
			if got := brief(r); got != row.want || r.Known != row.known {
				t.Errorf("got %s, %d known, want %s, %d", got, r.Known, row.want, row.known)
			}
		})
	}
}

func TestWrongBaseline(t *testing.T) {
	dir := write(t, map[string]string{"text": "no JSON", "new": `{"version": 2}`})
	for name, want := range map[string]string{"none": "create it with --write-baseline", "text": "is not a baseline", "new": "has version 2"} {
		if _, err := ReadBaseline(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if err := WriteBaseline(filepath.Join(dir, "none", "file"), &Report{}); !os.IsNotExist(err) {
		t.Errorf("a folder that does not exist: %v", err)
	}
}

func TestCheckIDs(t *testing.T) {
	if got, err := CheckIDs([]string{"f315,A1", "B"}); err != nil || strings.Join(got, " ") != "F315 A1 B" {
		t.Errorf("got %v, %v", got, err)
	}
	for id, want := range map[string]string{"A211": "did you mean A201?", "Q": "lists all"} {
		if _, err := CheckIDs([]string{id}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", id, err, want)
		}
	}
	if rule, err := Find(" f315 "); err != nil || rule.ID != "F315" {
		t.Errorf("Find = %v, %v", rule.ID, err)
	}
}

func TestPages(t *testing.T) {
	for _, rule := range Rules() {
		plain := rule.Plain()
		for _, want := range []string{rule.ID + ": " + rule.Title, "Severity: " + string(rule.Severity), rule.Sources[0]} {
			if !strings.Contains(plain, want) {
				t.Errorf("%s: no %q in\n%s", rule.ID, want, plain)
			}
		}
		if strings.Contains(plain, "```") || Buckets[rule.Bucket()] == "" {
			t.Errorf("%s:\n%s", rule.ID, plain)
		}
	}
	if rule, _ := Find("F315"); !strings.Contains(rule.Plain(), "\n    @spaces.GPU\n    def embed") {
		t.Errorf("code is not indented:\n%s", rule.Plain())
	}
}
