package identity

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func ref[T any](v T) *T { return &v }

// TestAPersonsOwnAllowance follows one person: what is changed holds at once, what is not named stays.
func TestAPersonsOwnAllowance(t *testing.T) {
	w := newTown(t)
	w.add("zoe")
	zoe := Identity{Kind: User, Name: "zoe"}
	want := func(what string, id Identity, own Own) {
		t.Helper()
		if got, err := w.OwnOf(t.Context(), id); err != nil || !reflect.DeepEqual(got, own) {
			t.Errorf("%s: got %+v (%v), want %+v", what, got, err, own)
		}
	}
	want("at first", zoe, Own{})
	quota, cup := ref(10*time.Minute), ref(2)
	if _, err := w.Set(t.Context(), "zoe", Change{Quota: &quota, Concurrency: &cup}); err != nil {
		t.Fatal(err)
	}
	want("changed", zoe, Own{Quota: quota, Concurrency: cup})
	if _, err := w.Set(t.Context(), "zoe", Change{Tier: ref("pro"), Concurrency: ref[*int](nil)}); err != nil {
		t.Fatal(err)
	}
	want("another tier, concurrency as the tier again", zoe, Own{Quota: quota})
	want("an address", Identity{Kind: Address, Name: "zoe"}, Own{})
	if got, err := w.Get(t.Context(), "zoe"); err != nil || got.Tier != "pro" || *got.Own.Quota != *quota {
		t.Errorf("zoe: %+v (%v)", got, err)
	}

	w.declare(Declared{"ada", "free", nil, Own{Longest: ref(time.Minute)}})
	ada := Identity{Kind: User, Name: "ada"}
	want("by the configuration", ada, Own{Longest: ref(time.Minute)})
	var configured *ConfiguredPersonError
	if _, err := w.Set(t.Context(), "ada", Change{Quota: &quota}); !errors.As(err, &configured) {
		t.Errorf("change of somebody whom the configuration has: %v", err)
	}
	w.declare(Declared{"ada", "free", nil, Own{}})
	want("no longer by the configuration", ada, Own{})
	w.declare(Declared{"ada", "free", nil, Own{Longest: ref(time.Minute)}})
	w.declare()
	if _, err := w.Add(t.Context(), "ada", "free", "operator"); err != nil {
		t.Fatal(err)
	}
	want("as the operator's", ada, Own{})
}

func TestNonsenseIsNoAllowance(t *testing.T) {
	for what, c := range map[string]Change{
		"nothing":             {},
		"no time":             {Quota: ref(ref(time.Duration(0)))},
		"less than none":      {Longest: ref(ref(-time.Hour))},
		"more than is stored": {Quota: ref(ref(20_000 * time.Hour))},
		"a negative rank":     {Priority: ref(ref(-1))},
		"many at a time":      {Concurrency: ref(ref(1001))},
	} {
		if c.Check() == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if err := (Change{Quota: ref[*time.Duration](nil)}).Check(); err != nil {
		t.Errorf("the tier's again: %v", err)
	}
}
