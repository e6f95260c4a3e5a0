package check

import (
	"testing"
	"testing/fstest"
)

func TestEveryPageIsARule(t *testing.T) {
	rules, err := readRules(pages)
	if err != nil || len(rules) == 0 {
		t.Fatalf("readRules = %d rules, %v", len(rules), err)
	}
	for _, rule := range rules {
		if got, ok := RuleByID(rule.ID); !ok || got.Title != rule.Title {
			t.Errorf("RuleByID(%s) = %+v, %v", rule.ID, got, ok)
		}
	}
}

func TestWrongPages(t *testing.T) {
	const head = "---\ntitle: t\nseverity: error\nstages: [read]\ntext: x\nsources: [s]\n"
	for name, text := range map[string]string{
		"X100": head + "---\n", "F1": head + "---\n", "F100": head, "F101": head + "typo: 1\n---\n",
		"F102": "---\ntitle: t\nseverity: fatal\nstages: [read]\ntext: x\nsources: [s]\n---\n",
	} {
		if rules, err := readRules(fstest.MapFS{"rules/" + name + ".md": {Data: []byte(text)}}); err == nil {
			t.Errorf("%s is accepted: %+v", name, rules)
		}
	}
}

func TestAddWritesTheRulesWords(t *testing.T) {
	var r Report
	fact := Fact{Rule: "F315", File: "app.py", Line: 16, Values: map[string]string{"function": "embed", "role": "handler of {name}", "name": "model", "placed": "6"}}
	if err := r.Add(StageRead, fact); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(StageCall, fact); err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 {
		t.Fatalf("%d findings, want the one of the first stage", len(r.Findings))
	}
	f := r.Findings[0]
	if f.Bucket != "F" || f.Severity != Error || f.Place() != "app.py:16" ||
		f.Text != "embed (handler of {name}) runs model, which stands on cuda (line 6), outside of any GPU function. ZeroGPU computes nothing there: the result is zeros, or the call fails." {
		t.Errorf("finding %+v", f)
	}
	if err := r.Add(StageRead, Fact{Rule: "F999"}); err == nil {
		t.Error("an unknown rule is accepted")
	}
	if r.AtLeast(Warning) != 1 {
		t.Errorf("AtLeast(warning) = %d, want 1", r.AtLeast(Warning))
	}
}
