package config

import (
	"fmt"
	"strings"
	"testing"

	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/quota"
)

// TestValues checks that no secret is among the values, and that every key of a difference is.
func TestValues(t *testing.T) {
	s := Settings{
		State: "/srv/state", EndUnleased: true, People: []people.Declared{{Name: "ada", Tier: "pro", Tokens: []string{"sha256:hash-7413", "sha256:other"}}},
		Webhooks: []notify.Hook{{Name: "ops", URL: "https://hooks.example/marker-7413"}},
		Spaces:   []SpaceSettings{{Dir: "/srv/demo", Name: "demo", Variables: map[string]string{"MODE": "marker-7413"}, Secrets: map[string]string{"KEY": "marker-7413"}}},
	}
	all := map[string]string{}
	for _, v := range Values(s, quota.Tiers{All: []quota.Tier{{Name: "pro", Runs: 7}}}) {
		all[strings.Join([]string{v.Subject, v.Name, v.Key}, " ")] = fmt.Sprintf("%s %v", v.Text, v.Hidden)
	}
	for key, want := range map[string]string{
		"host  state": "/srv/state false", "host  gpus.unleased": "end false", "host  users": " false", "host  trusted_proxies": " false", "tier pro runs": "7 false",
		"person ada tokens": "2 false", "webhook ops url": " true", "webhook ops secret": " false", "space demo folder": "/srv/demo false",
		"space demo variables.MODE": " true", "space demo secrets.KEY": " true",
	} {
		if got, ok := all[key]; !ok || got != want {
			t.Errorf("%s: %q (%v), want %q", key, got, ok, want)
		}
	}
	if text := fmt.Sprint(all); strings.Contains(text, "7413") {
		t.Errorf("a secret is shown: %s", text)
	}
	for _, f := range spaceFields {
		if _, ok := all["space demo "+f.key]; !ok {
			t.Errorf("key %s of a Space is missing", f.key)
		}
	}
}
