package config

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/quota"
)

// personEntry is a person with the nodes that the cross checks report. Without a key of its own, a node is the person's.
type personEntry struct {
	people.Declared
	nameAt, tierAt node
	webhook        *notify.Hook // nil: none
}

func (l *loader) person(n node) {
	p := personEntry{nameAt: n, tierAt: n}
	p.Tier = "free"
	n.fields("a mapping that describes a person (name, tier, tokens, group, admin, quota, longest, runs, priority, concurrency, webhook)", map[string]func(node){
		"name":        func(at node) { p.nameAt = at; set(&p.Name)(at.text()) },
		"tier":        func(at node) { p.tierAt = at; set(&p.Tier)(at.text()) },
		"quota":       func(at node) { setOptional(&p.Overrides.Quota)(at.duration(time.Second, quota.MostGrant)) },
		"longest":     func(at node) { setOptional(&p.Overrides.Longest)(at.duration(time.Second, quota.MostGrant)) },
		"runs":        func(at node) { setOptional(&p.Overrides.Runs)(at.number(0, quota.MostRuns)) },
		"priority":    func(at node) { setOptional(&p.Overrides.Priority)(at.number(0, maxPriority)) },
		"concurrency": func(at node) { setOptional(&p.Overrides.Concurrency)(at.number(0, maxConcurrency)) },
		"group":       func(at node) { l.group(at, &p.Group) },
		"admin":       func(at node) { set(&p.Admin)(at.boolean()) },
		"webhook":     func(at node) { p.webhook = new(l.personWebhook(at)) },
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

// group reads the name of a group. Its rule is that of people.
func (l *loader) group(at node, into *string) {
	if text, ok := at.text(); ok {
		if err := people.CheckName(text); err != nil {
			at.fail("%v", err)
			return
		}
		*into = text
	}
}

// adminGroup is a group of admins and the place of its name.
type adminGroup struct {
	name string
	at   node
}

// checkAdminGroups refuses a group without a person: its name is usually mistyped.
func (l *loader) checkAdminGroups() {
	for _, g := range l.adminGroups {
		if !slices.ContainsFunc(l.settings.People, func(p people.Declared) bool { return p.Group == g.name }) {
			g.at.fail("no person has `group: %s`; add it to a person under `people`, or remove it here", g.name)
		}
		l.settings.AdminGroups = append(l.settings.AdminGroups, g.name)
	}
}

// IsAdmin reports whether a person of the file is an admin at the console: by `admin: true`, or by a group of `admin_groups`.
func (s *Settings) IsAdmin(name string) bool {
	return slices.ContainsFunc(s.People, func(p people.Declared) bool {
		return p.Name == name && (p.Admin || p.Group != "" && slices.Contains(s.AdminGroups, p.Group))
	})
}

// GroupOf returns the group of a person of the file, "" without one.
func (s *Settings) GroupOf(name string) string {
	for _, p := range s.People {
		if p.Name == name {
			return p.Group
		}
	}
	return ""
}
