package check

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	for name, row := range map[string]struct {
		fact Fact
		want string
	}{
		"words of runtime.yaml": {Fact{Rule: "F308", File: "app.py", Line: 14, Values: map[string]string{"function": "compare", "call": "torch.ones"}},
			"app.py:14: F308 (bucket F): compare uses CUDA outside of a GPU function. Next: decorate compare with @spaces.GPU. More: spacehost explain-rule F308"},
		"words of the page, without a place": {Fact{Rule: "D701"},
			"D701 (bucket D): a client passed a plain path or URL to a file input. Next: let the client wrap it: handle_file(PATH) in Python, handle_file(url) in JavaScript. More: spacehost explain-rule D701"},
		"a value is no name":  {Fact{Rule: "B601", File: "app.py", Values: map[string]string{"name": "{fix}"}}, "app.py: B601 (bucket B): the variable {fix} is not set. Next: pass it with --secret {fix}=VALUE, and on the Hub add the Secret {fix}: a duplicate of a Space gets no Secrets. More: spacehost explain-rule B601"},
		"a value is missing":  {Fact{Rule: "F308", File: "app.py", Line: 14}, ""},
		"the rule is unknown": {Fact{Rule: "F999"}, ""},
	} {
		if got := Explain(row.fact); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, row.want)
		}
	}
}

// TestTheRunnersRulesHaveWords compares the rules that the runner reports with those that have words, and the values of each
// sentence with those that the runner names.
func TestTheRunnersRulesHaveWords(t *testing.T) {
	source, err := os.ReadFile("../../worker/runner/spacehost_runner/failures.py")
	if err != nil {
		t.Fatal(err)
	}
	pickling, err := os.ReadFile("../../worker/runner/spacehost_runner/pickling.py")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source) + string(pickling)
	reported := map[string]bool{}
	for _, found := range regexp.MustCompile(`"([A-HS][0-9]{3})"`).FindAllStringSubmatch(text, -1) {
		reported[found[1]] = true
		sentences, known := runtimeWords()[found[1]]
		if rule, ok := RuleByID(found[1]); !known && ok {
			sentences = words{rule.Text, rule.Fix}
		} else if !known {
			t.Errorf("%s has no words", found[1])
		}
		for _, name := range placeholder.FindAllStringSubmatch(sentences.Text+sentences.Fix, -1) {
			if !strings.Contains(text, `"`+name[1]+`":`) {
				t.Errorf("the runner never names {%s}, which %s needs", name[1], found[1])
			}
		}
	}
	for rule, sentences := range runtimeWords() {
		if !reported[rule] || sentences.Text == "" || sentences.Fix == "" {
			t.Errorf("%s: reported by the runner: %v, words %+v", rule, reported[rule], sentences)
		}
	}
}

func TestWordsAtRunTimeBelongToAPage(t *testing.T) {
	for rule := range runtimeWords() {
		if _, ok := RuleByID(rule); !ok {
			t.Errorf("%s has no page", rule)
		}
	}
}
