package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/quota"
)

// digestLength is the number of hexadecimal digits of a digest: enough to tell configurations apart.
const digestLength = 16

// Digest identifies the effective configuration of a host: two hosts with the same settings have the same digest, and each
// change that Difference lists changes it, except for the values of Secrets and the URLs and secrets of webhooks. They are left
// out, so that no digest helps to guess one; a Secret and a webhook count by name. tiers are those in force.
func Digest(s Settings, tiers quota.Tiers) string {
	sum := sha256.New()
	line := func(subject, name, key, value string) { fmt.Fprintf(sum, "%q %q %q %q\n", subject, name, key, value) }
	for _, f := range hostFields {
		line("host", "", f.key, f.text(s))
	}
	for _, tier := range sortedBy(tiers.All, func(t quota.Tier) string { return t.Name }) {
		for _, f := range tierFields {
			line("tier", tier.Name, f.key, f.text(tier))
		}
	}
	for _, person := range sortedBy(s.People, func(p people.Declared) string { return p.Name }) {
		for _, f := range personFields {
			line("person", person.Name, f.key, f.text(person))
		}
	}
	for _, hook := range sortedBy(s.Webhooks, func(h notify.Hook) string { return h.Name }) {
		for _, f := range webhookFields {
			if !f.hidden { // URL and secret
				line("webhook", hook.Name, f.key, f.text(hook))
			}
		}
	}
	for _, pool := range sortedBy(s.Pools, poolNameOf) {
		for _, f := range poolFields {
			line("pool", pool.Name, f.key, f.text(pool))
		}
	}
	for _, space := range sortedBy(s.Spaces, SpaceSettings.EffectiveName) {
		name := space.EffectiveName()
		for _, f := range spaceFields {
			line("space", name, f.key, f.text(space))
		}
		for _, key := range union(space.Variables, nil) {
			line("space", name, "variables."+key, space.Variables[key])
		}
		for _, key := range union(space.Secrets, nil) {
			line("space", name, "secrets."+key, "set")
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:digestLength]
}

func sortedBy[T any](all []T, name func(T) string) []T {
	return slices.SortedFunc(slices.Values(all), func(a, b T) int { return cmp.Compare(name(a), name(b)) })
}
