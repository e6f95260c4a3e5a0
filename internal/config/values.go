package config

import (
	"fmt"

	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/quota"
)

// Value is one key of a configuration. Text never contains the value of a Secret, of a Variable, of a token or of a URL of a webhook.
type Value struct {
	Subject string // host, tier, person, webhook, pool or space
	Name    string // of the tier, the person, the webhook, the pool or the Space
	Key     string // as in the file
	Text    string // empty: not set
	Hidden  bool   // the key is set, and its value is not shown
}

// Values lists every key that Difference compares, in the same order, with its value in s. tiers are those in force.
func Values(s Settings, tiers quota.Tiers) (all []Value) {
	all = append(all, valuesOf("host", "", hostFields, s)...)
	for _, tier := range sortedBy(tiers.All, func(t quota.Tier) string { return t.Name }) {
		all = append(all, valuesOf("tier", tier.Name, tierFields, tier)...)
	}
	for _, person := range sortedBy(s.People, func(p people.Declared) string { return p.Name }) {
		values := valuesOf("person", person.Name, personFields, person)
		for i, v := range values {
			if v.Key == "tokens" && v.Hidden {
				values[i].Text, values[i].Hidden = fmt.Sprint(len(person.Tokens)), false
			}
		}
		all = append(all, values...)
	}
	for _, hook := range sortedBy(s.Webhooks, func(h notify.Hook) string { return h.Name }) {
		all = append(all, valuesOf("webhook", hook.Name, webhookFields, hook)...)
	}
	for _, pool := range sortedBy(s.Pools, poolNameOf) {
		all = append(all, valuesOf("pool", pool.Name, poolFields, pool)...)
	}
	for _, space := range sortedBy(s.Spaces, SpaceSettings.EffectiveName) {
		name := space.EffectiveName()
		all = append(all, valuesOf("space", name, spaceFields, space)...)
		for _, key := range union(space.Variables, nil) {
			all = append(all, Value{"space", name, "variables." + key, "", true})
		}
		for _, key := range union(space.Secrets, nil) {
			all = append(all, Value{"space", name, "secrets." + key, "", true})
		}
	}
	return all
}

func valuesOf[T any](subject, name string, fields []field[T], of T) (all []Value) {
	for _, f := range fields {
		v := Value{Subject: subject, Name: name, Key: f.key, Text: f.text(of)}
		if v.Hidden = f.hidden && v.Text != ""; v.Hidden {
			v.Text = ""
		}
		all = append(all, v)
	}
	return all
}
