package people

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"spacehost/internal/identity"
)

func ref[T any](v T) *T { return &v }

// TestOverrides follows one person: changes apply immediately, and nil fields are not changed.
func TestOverrides(t *testing.T) {
	f := newFixture(t)
	f.add("zoe")
	zoe := identity.Identity{Kind: identity.User, Name: "zoe"}
	want := func(what string, id identity.Identity, own Overrides) {
		t.Helper()
		if got, err := f.OverridesOf(t.Context(), id); err != nil || !reflect.DeepEqual(got, own) {
			t.Errorf("%s: got %+v (%v), want %+v", what, got, err, own)
		}
	}
	want("at first", zoe, Overrides{})
	quota, cup := ref(10*time.Minute), ref(2)
	if _, err := f.Set(t.Context(), "zoe", Change{Quota: &quota, Concurrency: &cup}); err != nil {
		t.Fatal(err)
	}
	want("changed", zoe, Overrides{Quota: quota, Concurrency: cup})
	runs := ref(0)
	if _, err := f.Set(t.Context(), "zoe", Change{Runs: &runs}); err != nil {
		t.Fatal(err)
	}
	want("no limit of runs", zoe, Overrides{Quota: quota, Concurrency: cup, Runs: runs})
	if _, err := f.Set(t.Context(), "zoe", Change{Tier: ref("pro"), Concurrency: ref[*int](nil), Runs: ref[*int](nil)}); err != nil {
		t.Fatal(err)
	}
	want("another tier, concurrency as the tier again", zoe, Overrides{Quota: quota})
	want("an address", identity.Identity{Kind: identity.Address, Name: "zoe"}, Overrides{})
	if got, err := f.Get(t.Context(), "zoe"); err != nil || got.Tier != "pro" || *got.Overrides.Quota != *quota {
		t.Errorf("zoe: %+v (%v)", got, err)
	}

	f.declare(Declared{Name: "ada", Tier: "free", Tokens: nil, Overrides: Overrides{Longest: ref(time.Minute)}})
	ada := identity.Identity{Kind: identity.User, Name: "ada"}
	want("by the configuration", ada, Overrides{Longest: ref(time.Minute)})
	var configured *ConfiguredPersonError
	if _, err := f.Set(t.Context(), "ada", Change{Quota: &quota}); !errors.As(err, &configured) {
		t.Errorf("change of a configured person: %v", err)
	}
	f.declare(Declared{Name: "ada", Tier: "free", Tokens: nil, Overrides: Overrides{}})
	want("no longer by the configuration", ada, Overrides{})
	f.declare(Declared{Name: "ada", Tier: "free", Tokens: nil, Overrides: Overrides{Longest: ref(time.Minute)}})
	f.declare()
	if _, err := f.Add(t.Context(), "ada", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	want("as the operator's", ada, Overrides{})
}

func TestInvalidChangesAreRefused(t *testing.T) {
	for what, c := range map[string]Change{
		"nothing":             {},
		"no time":             {Quota: ref(ref(time.Duration(0)))},
		"less than none":      {Longest: ref(ref(-time.Hour))},
		"more than is stored": {Quota: ref(ref(20_000 * time.Hour))},
		"a negative rank":     {Priority: ref(ref(-1))},
		"many at a time":      {Concurrency: ref(ref(1001))},
	} {
		if c.Check() == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	if err := (Change{Quota: ref[*time.Duration](nil)}).Check(); err != nil {
		t.Errorf("reset to the tier's value: %v", err)
	}
}
