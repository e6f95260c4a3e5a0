package config

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/people"
	"spacehost/quota"
)

// personEntry is a person with the nodes that the cross checks report. Without a key of its own, a node is the person's.
type personEntry struct {
	people.Declared
	nameAt, tierAt node
}

func (l *loader) person(n node) {
	p := personEntry{nameAt: n, tierAt: n}
	p.Tier = "free"
	n.fields("a mapping that describes a person (name, tier, tokens, quota, longest, runs, priority, concurrency)", map[string]func(node){
		"name":        func(at node) { p.nameAt = at; set(&p.Name)(at.text()) },
		"tier":        func(at node) { p.tierAt = at; set(&p.Tier)(at.text()) },
		"quota":       func(at node) { setOptional(&p.Overrides.Quota)(at.duration(time.Second, quota.MostGrant)) },
		"longest":     func(at node) { setOptional(&p.Overrides.Longest)(at.duration(time.Second, quota.MostGrant)) },
		"runs":        func(at node) { setOptional(&p.Overrides.Runs)(at.number(0, quota.MostRuns)) },
		"priority":    func(at node) { setOptional(&p.Overrides.Priority)(at.number(0, maxPriority)) },
		"concurrency": func(at node) { setOptional(&p.Overrides.Concurrency)(at.number(0, maxConcurrency)) },
		"tokens": func(at node) {
			at.texts("hashes of tokens", func(at node, text string) { l.token(at, text, &p) })
		},
	})
	if n.yaml.Kind != yaml.MappingNode {
		return
	}
	switch {
	case p.Name == "" && p.nameAt == n:
		n.fail("has no `name`; add one")
	case p.Name != "" && people.CheckName(p.Name) != nil:
		p.nameAt.fail("%v", people.CheckName(p.Name))
	}
	if len(p.Tokens) > people.MaxTokens {
		n.fail("has %d tokens, but at most %d are allowed; remove some", len(p.Tokens), people.MaxTokens)
	}
	l.people = append(l.people, p)
}

// token adds the hash of a token to p. A token identifies one person, so a duplicate is a mistake.
func (l *loader) token(n node, text string, p *personEntry) {
	text = strings.ToLower(text)
	if err := people.CheckHash(text); err != nil {
		n.fail("%v", err)
		return
	}
	for _, other := range append(slices.Clone(l.people), *p) {
		if slices.Contains(other.Tokens, text) {
			n.fail("duplicate token; list each token once, under one person")
			return
		}
	}
	p.Tokens = append(p.Tokens, text)
}
