package check

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed runtime.yaml
var runtimeYAML []byte

// words are the sentences of one rule for a failure at run time.
type words struct {
	Text string `yaml:"text"`
	Fix  string `yaml:"fix"`
}

// runtimeWords reads the embedded file once. A file that cannot be read is a mistake of this program, which every test finds.
var runtimeWords = sync.OnceValue(func() map[string]words {
	var all map[string]words
	if err := yaml.Unmarshal(runtimeYAML, &all); err != nil {
		panic(err)
	}
	return all
})

// Explain returns the one line about a failure of a running Space: the place, the rule, the bucket, what happened, the next
// step and the page.
//
//	app.py:14: F308 (bucket F): compare uses CUDA outside of a GPU function. Next: decorate compare with @spaces.GPU. More: spacehost explain-rule F308
//
// It returns "" for an unknown rule, or if a value of a sentence is missing: the runner is of another version. Values are text
// of the Space; the caller has removed control characters. It may be called from any goroutine.
func Explain(fact Fact) string {
	sentences, known := runtimeWords()[fact.Rule]
	if !known {
		rule, ok := RuleByID(fact.Rule)
		if !ok {
			return ""
		}
		sentences = words{rule.Text, rule.Fix}
	}
	for _, name := range placeholder.FindAllStringSubmatch(sentences.Text+sentences.Fix, -1) {
		if _, ok := fact.Values[name[1]]; !ok {
			return ""
		}
	}
	place := ""
	if fact.File != "" {
		place = Finding{File: fact.File, Line: fact.Line}.Place() + ": "
	}
	return fmt.Sprintf("%s%s (bucket %s): %s. Next: %s. More: spacehost explain-rule %s", place, fact.Rule, fact.Rule[:1],
		sentence(sentences.Text, fact.Values), sentence(sentences.Fix, fact.Values), fact.Rule)
}

// sentence fills a text and removes the full stop that Explain adds.
func sentence(text string, values map[string]string) string {
	return strings.TrimSuffix(fill(text, values), ".")
}
