package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/quota"
)

func TestReadTiersFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("tiers.yaml", "base: 2026-08\ntiers:\n  pro: {quota: 1h, concurrency: 4}\n  student: {quota: 10m, longest: 2m, priority: 3, runs: 8}\n")
	tiers, err := ReadTiers(good)
	if err != nil || tiers.Preset != good {
		t.Fatalf("got %+v (%v)", tiers, err)
	}
	for _, want := range []quota.Tier{
		{Name: "free", Quota: 300 * time.Second, Authenticated: "regular", Priority: 1},
		{Name: "pro", Quota: time.Hour, Authenticated: "pro", Priority: 2, Concurrency: 4},
		{Name: "student", Quota: 10 * time.Minute, Longest: 2 * time.Minute, Authenticated: "regular", Priority: 3, Runs: 8},
	} {
		if got, err := tiers.Get(want.Name); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v (%v), want %+v", got, err, want)
		}
	}
	bad := write("bad.yml", "base: 2025\ntiers:\n  unlimited: {quota: 1}\n  b: {qota: 5}\n  c: {quota: 1m, runs: -1}\n")
	for path, mistakes := range map[string][]string{
		bad:                                    {bad + ":1: base: no quota preset", bad + `:3: tiers.unlimited: the tier`, bad + `:4: tiers.b.qota: unknown key; did you mean "quota"?`, bad + ":5: tiers.c.runs: must be a whole number from 0 to 100000"},
		write("empty.yaml", "base: 2026-04\n"): {":1: no tiers are defined; add at least one under `tiers`"},
		filepath.Join(dir, "gone.yaml"):        {"gone.yaml:1: cannot read the file: no such file or directory; correct the path"},
	} {
		_, err := ReadTiers(path)
		wrong, ok := errors.AsType[*FileError](err)
		if !ok || len(wrong.Problems) != len(mistakes) {
			t.Errorf("%s: got %v, want %d mistakes", path, err, len(mistakes))
			continue
		}
		for i, p := range wrong.Problems {
			if !strings.Contains(p.String(), mistakes[i]) {
				t.Errorf("got  %s\nwant %s", p, mistakes[i])
			}
		}
	}
	if _, err := ReadTiers("2025-01"); err == nil || !strings.Contains(err.Error(), "2026-04, 2026-08, 2026-10; for a file of tiers, give a path") {
		t.Errorf("unknown preset: %v", err)
	}
	if err := CheckTiers(bad, "free"); err == nil || !strings.Contains(err.Error(), bad+":4: tiers.b.qota") {
		t.Errorf("--quota: %v", err)
	}
	if _, _, err := configIn(t, "quota: "+bad+"\nspaces: []\n"); err == nil || !strings.Contains(err.Error(), bad+":4: tiers.b.qota") {
		t.Errorf("serve: %v", err)
	}
}
