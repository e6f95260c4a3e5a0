package config

import (
	"testing"

	"spacehost/internal/people"
	"spacehost/quota"
)

// TestDigest checks that each kind of change changes the digest, and that neither the order of entries nor the value of a Secret does.
func TestDigest(t *testing.T) {
	base := func() (Settings, quota.Tiers) {
		return Settings{
			State: "/srv", Keep: DefaultKeep,
			People: []people.Declared{{Name: "ada", Tier: "pro", Tokens: []string{"sha256:1"}}, {Name: "ben"}},
			Spaces: []SpaceSettings{{Dir: "/a", Secrets: map[string]string{"KEY": "1"}, Variables: map[string]string{"LANG": "fi"}}, {Dir: "/b"}},
		}, quota.Tiers{All: []quota.Tier{{Name: "pro", Runs: 1}, {Name: "free"}}}
	}
	digest := func(change func(*Settings, *quota.Tiers)) string {
		s, tiers := base()
		change(&s, &tiers)
		return Digest(s, tiers)
	}
	same := digest(func(*Settings, *quota.Tiers) {})
	for name, change := range map[string]func(*Settings, *quota.Tiers){
		"order": func(s *Settings, tiers *quota.Tiers) {
			s.People[0], s.People[1] = s.People[1], s.People[0]
			s.Spaces[0], s.Spaces[1] = s.Spaces[1], s.Spaces[0]
			tiers.All[0], tiers.All[1] = tiers.All[1], tiers.All[0]
		},
		"a Secret": func(s *Settings, _ *quota.Tiers) { s.Spaces[0].Secrets["KEY"] = "2" },
	} {
		if got := digest(change); got != same {
			t.Errorf("%s: the digest is %s, want %s", name, got, same)
		}
	}
	seen := map[string]string{same: "none"}
	for name, change := range map[string]func(*Settings, *quota.Tiers){
		"host":             func(s *Settings, _ *quota.Tiers) { s.Keep = 0 },
		"agent":            func(s *Settings, _ *quota.Tiers) { s.Agent = LocalAgent },
		"cluster":          func(s *Settings, _ *quota.Tiers) { s.Cluster.Listen.Value = ":1" },
		"total limits":     func(s *Settings, _ *quota.Tiers) { s.TotalLimits.Memory = 1 << 30 },
		"tier":             func(_ *Settings, tiers *quota.Tiers) { tiers.All[0].Runs = 2 },
		"person":           func(s *Settings, _ *quota.Tiers) { s.People[0].Tier = "free" },
		"token":            func(s *Settings, _ *quota.Tiers) { s.People[0].Tokens[0] = "sha256:2" },
		"space":            func(s *Settings, _ *quota.Tiers) { s.Spaces[1].Host = "b.example" },
		"nodes":            func(s *Settings, _ *quota.Tiers) { s.Spaces[1].On = []string{"gpu2"} },
		"limits":           func(s *Settings, _ *quota.Tiers) { s.Spaces[1].Limits.LogSize = 8 << 20 },
		"variable":         func(s *Settings, _ *quota.Tiers) { s.Spaces[0].Variables["LANG"] = "sv" },
		"name of a Secret": func(s *Settings, _ *quota.Tiers) { s.Spaces[0].Secrets["OTHER"] = "" },
	} {
		got := digest(change)
		if other, ok := seen[got]; ok || len(got) != digestLength {
			t.Errorf("%s: digest %q, that of %s", name, got, other)
		}
		seen[got] = name
	}
}
