package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
)

// settingsOf returns the settings of `run` with the given flags.
func settingsOf(t *testing.T, args ...string) config.Settings {
	t.Helper()
	o := options{dirs: []string{"a", "b"}}
	c := &cobra.Command{}
	o.flags(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	return o.settings()
}

// TestIsolationFlagsOfRun checks that every Space of `run` gets the flags' values, and that auto is the default.
func TestIsolationFlagsOfRun(t *testing.T) {
	state := t.TempDir()
	for _, space := range settingsOf(t, "--state", state).Spaces {
		if got := space.IsolationSettings; got.Isolation != config.IsolationAuto || got.Egress.Mode != config.EgressHub || got.Data.Keep || got.Limits != (config.Limits{}) {
			t.Errorf("without flags: got %+v", got)
		}
	}
	s := settingsOf(t, "--state", state, "--isolation", "namespaces", "--egress", "none", "--mount", "/usr", "--mount", "/usr/share:rw", "--data", "true", "--limit", "memory=8GiB", "--limit", "output=1MB/s")
	want := config.IsolationSettings{
		Isolation: config.IsolationNamespaces, Egress: config.Egress{Mode: config.EgressNone}, Limits: config.Limits{Memory: 8 << 30, Output: 1e6},
		Data: config.Data{Keep: true}, Mounts: []config.Mount{{Path: "/usr"}, {Path: "/usr/share", Write: true}},
	}
	for _, space := range s.Spaces {
		if got := space.Places["egress"].Mistake("fails").Error(); got != "--egress: fails" {
			t.Errorf("got %s", got)
		}
		if space.Places = nil; !reflect.DeepEqual(space.IsolationSettings, want) {
			t.Errorf("got  %+v\nwant %+v", space.IsolationSettings, want)
		}
	}
}

// TestLivenessOfRun checks that every Space of `run` gets the times.
func TestLivenessOfRun(t *testing.T) {
	state := t.TempDir()
	for _, row := range []struct {
		flags []string
		want  config.Liveness
	}{
		{nil, config.DefaultLiveness},
		{[]string{"--liveness", "after=1m", "--liveness", "restart_after=never"}, config.Liveness{After: time.Minute}},
		{[]string{"--liveness", "after=never"}, config.Liveness{RestartAfter: config.DefaultLiveness.RestartAfter}},
	} {
		for _, space := range settingsOf(t, append([]string{"--state", state}, row.flags...)...).Spaces {
			if space.Liveness != row.want {
				t.Errorf("%q: got %v, want %v", row.flags, space.Liveness, row.want)
			}
		}
	}
}

// TestIsolationMistakesOfRun checks that a wrong flag is wrong usage, before the host starts.
func TestIsolationMistakesOfRun(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	for _, row := range []struct{ flag, value, want string }{
		{"--isolation", "namespace", `--isolation: unknown level "namespace"; did you mean "namespaces"?; see `},
		{"--egress", "everything", `--egress: "everything" is neither hub, none, all nor a host name`},
		{"--liveness", "after", `--liveness "after" is not KEY=VALUE; give one such as restart_after=5m`},
		{"--liveness", "after=soon", `--liveness after: must be from 1s to 24h, such as 90s, or never, not "soon"`},
		{"--liveness", "restart=1s", `--liveness restart: unknown key "restart"; `},
		{"--mount", filepath.Dir(state), "--mount: " + filepath.Dir(state) + " contains files of the state folder " + state},
		{"--data", "/proc/1", "--data: /proc/1 is "},
		{"--limit", "memory=8", "--limit: memory: must be a size of at least 64MiB"},
	} {
		if got := spacehostOn(t.Context(), state, "run", row.flag, row.value); got.code != ExitUsage || !strings.HasPrefix(got.err, "spacehost: "+row.want) {
			t.Errorf("%s %s: got %+v, want %s", row.flag, row.value, got, row.want)
		}
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("a mistake in a flag creates the state folder")
	}
}

// TestServeChecksMountsAgainstStateFlag checks that --state protects its folder from the mounts of a file, also with --check.
func TestServeChecksMountsAgainstStateFlag(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.MkdirAll("models/demo", 0o755); err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(dir, "models")
	for name, text := range map[string]string{
		"models/demo/README.md": "---\nsdk: gradio\n---\n", "models/demo/app.py": "",
		"lab.yaml": "state: apart\nspaces:\n- folder: models/demo\n  address: ':0'\n  mounts: [" + models + "]\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := spacehostOn(t.Context(), "", "serve", "--config", "lab.yaml", "--check"); got.code != 0 {
		t.Errorf("the state folder of the file: got %+v", got)
	}
	for _, more := range [][]string{{"--check"}, nil} {
		got := spacehostOn(t.Context(), "models/state", append([]string{"serve", "--config", "lab.yaml"}, more...)...)
		if want := "lab.yaml:5: spaces[0].mounts[0]: " + models + " contains files of the state folder " + models + "/state"; got.code != ExitServe || !strings.Contains(got.err, want) {
			t.Errorf("%v: got %+v, want %s", more, got, want)
		}
	}
}
