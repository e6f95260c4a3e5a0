package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/internal/people"
	"spacehost/quota"
)

// configIn writes a configuration beside a folder "demo", and loads it.
func configIn(t *testing.T, text string) (settings, []string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "demo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lab.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	return loadConfig("lab.yaml")
}

const demo = "spaces: [{folder: demo, address: 127.0.0.1:1}]\n"

// Each mistake with its line, key and sentence; all that a file has, and nothing that only follows from another.
func TestMistakesOfAConfiguration(t *testing.T) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	rows := []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"lab.yaml:1: the file is empty: it needs `spaces` at least"}},
		{"comments only", "# nothing\n", []string{"lab.yaml:1: the file is empty"}},
		{"a list", "- a\n", []string{"lab.yaml:1: must be the configuration, one `key: value` in each line"}},
		{"no YAML", demo + "state: a: b\n", []string{"lab.yaml:2: this is not YAML (mapping values"}},
		{"no YAML below, in a block that begins above", "spaces:\n  - folder: demo\n    address: 127.0.0.1:1\n    visibility private\n    members: [a]\nconsole: 127.0.0.1:2\n", []string{"lab.yaml:4: this is not YAML"}},
		{"an indentation", demo + "tiers:\n  a: {quota: 5}\n  b: {quota: 6}\n c: {quota: 7}\n  d: {quota: 8}\n", []string{"lab.yaml:5: this is not YAML"}},
		{"a tab", demo + "gpus:\n\tlarge: 1\nquota: 2026-04\n", []string{"lab.yaml:3: this is not YAML"}},
		{"a quote, a bracket", "state: 'a\n" + demo, []string{"lab.yaml:1: this is not YAML"}},
		{"no end of a list", "hosts: [a,\n  b\n" + demo, []string{"lab.yaml:1: this is not YAML"}},
		{"an anchor that is none", demo + "hosts:\n- &a b\n- *c\n- *a\n", []string{"lab.yaml:4: this is not YAML (unknown anchor 'c' referenced)"}},
		{"a second document", demo + "---\na: b\nc: d: e\n", []string{"lab.yaml:4: this is not YAML"}},
		{"two documents", demo + "---\n" + demo, []string{"lab.yaml:2: a second document begins here"}},
		{"no Spaces", "spaces: []\n", []string{"lab.yaml:1: there are no Spaces"}},
		{"unknown key", demo + "quueue_timeout: 5\n", []string{`lab.yaml:2: quueue_timeout: unknown key; did you mean "queue_timeout"?`}},
		{"far from any key", demo + "zzzzzz: 5\n", []string{`lab.yaml:2: zzzzzz: unknown key; there are address, by_name, console, console_url, gpus, hosts,`}},
		{"twice", "quota: 2026-04\n" + demo + "quota: 2026-08\n", []string{"lab.yaml:3: quota: stands here and in line 1: remove one of them"}},
		{"no value", demo + "state:\n", []string{"lab.yaml:2: state: has no value"}},
		{"no text", demo + "state: 12\n", []string{"lab.yaml:2: state: 12 is not text to YAML: put quotes around it"}},
		{"a list for a word", demo + "quota: [a]\n", []string{"lab.yaml:2: quota: must be one value"}},
		{"a word for a list", demo + "hosts: a\n", []string{"lab.yaml:2: hosts: must be a list of host names"}},
		{"merge keys", "x: &x {state: a}\n<<: *x\n" + demo, []string{"lab.yaml:1: x: unknown key", "lab.yaml:2: <<: unknown key"}},

		{"preset", demo + "quota: 2025\npeople: [{name: ada, tier: gold}]\n", []string{`lab.yaml:2: quota: no quota preset "2025", known are: 2026-04, 2026-08`}},
		{"GPUs", demo + "gpus: {machine: mock:2xZ9, large: 1/9, uninvited: kill}\n", []string{`lab.yaml:2: gpus.machine: simulate "2xZ9"`, "lab.yaml:2: gpus.large: \"1/9\" is no share of a GPU", `lab.yaml:2: gpus.uninvited: "kill" is not known`}},
		{"hardware and limits", "gpus: {hardware: a100, per_space: -1}\nspaces:\n- {folder: demo, address: '127.0.0.1:1', concurrency: many}\ntiers: {a: {quota: 5, concurrency: 1001}}\n", []string{
			`lab.yaml:1: gpus.hardware: a100 is not known here: say auto, h200 or rtx-pro-6000`, "lab.yaml:1: gpus.per_space: must be a whole number from 0 to 1000",
			"lab.yaml:3: spaces[0].concurrency: must be a whole number", "lab.yaml:4: tiers.a.concurrency: must be a whole number"}},
		{"GPUs, a word", demo + "gpus: many\n", []string{`lab.yaml:2: gpus: "many" is not known here: say auto, none, or mock:2xH200`}},
		{"timeout", demo + "queue_timeout: soon\n", []string{`lab.yaml:2: queue_timeout: must be from 1s to 24h0m0s, as 90s, 10m or a number of seconds, and not "soon"`}},
		{"keep", demo + "keep: 12h\n", []string{`lab.yaml:2: keep: must be from 1d to 36500d, as 90d, or forever, and not "12h"`}},
		{"timeout below a second", demo + "queue_timeout: 0.5\n", []string{"lab.yaml:2: queue_timeout: must be from 1s"}},
		{"hosts", demo + "hosts: [good, 'http://bad', 10.0.0.1, 'a:80']\n", []string{
			`lab.yaml:2: hosts[1]: "http://bad" is not a host name`, `lab.yaml:2: hosts[2]: "10.0.0.1" is not`, `lab.yaml:2: hosts[3]: "a:80" is not`}},
		{"proxies", demo + "trusted_proxies:\n- 10.0.0.0/8\n- proxy\n- 0.0.0.0/0\n", []string{
			`lab.yaml:4: trusted_proxies[1]: "proxy": this is neither`, `lab.yaml:5: trusted_proxies[2]: "0.0.0.0/0": this trusts all addresses`}},
		{"networks", demo + "metrics_from: [prometheus]\n", []string{`lab.yaml:2: metrics_from[0]: "prometheus": this is neither`}},
		{"console", demo + "console: 127.0.0.1:1\n", []string{"lab.yaml:1: spaces[0]: its address 127.0.0.1:1 is that of console as well"}},
		{"one address in other words", "console: 127.0.0.1:7950\nspaces:\n- {folder: demo, name: a, address: '0.0.0.0:7950'}\n- {folder: demo, name: b, address: 'localhost:7950'}\n- {folder: demo, name: c, address: '[::]:7950'}\n- {folder: demo, name: d, address: ':07950'}\n- {folder: demo, name: e, address: '127.0.0.2:7950'}\n- {folder: demo, name: f, address: '[::1]:7950'}\n- {folder: demo, name: g, address: '[::ffff:127.0.0.2]:7950'}\n", []string{
			"lab.yaml:3: spaces[0]: its address 0.0.0.0:7950 is that of console as well, 127.0.0.1:7950: give one of them another port",
			"lab.yaml:4: spaces[1]: its address localhost:7950 is that of console", "lab.yaml:5: spaces[2]: its address [::]:7950 is that of console", "lab.yaml:6: spaces[3]: its address 127.0.0.1:07950 is that of console",
			"lab.yaml:9: spaces[6]: its address [::ffff:127.0.0.2]:7950 is that of spaces[4] as well, 127.0.0.2:7950"}},
		{"the common address and the console", "address: localhost:7950\nconsole: '[::]:7950'\nspaces: [{folder: demo, host: h}]\n", []string{"lab.yaml:1: `address` localhost:7950 and `console` [::]:7950 are one: give one of them another port"}},
		{"port 0 is another one each time", "console: ':0'\nspaces: [{folder: demo, address: '0.0.0.0:0'}, {folder: demo, address: '127.0.0.1:0', name: b, zzz: 1}]\n", []string{"lab.yaml:2: spaces[1].zzz: unknown key"}},

		{"tiers", demo + "tiers:\n  a: {}\n  b: {quota: 60, longest: 2m}\n  c: {unlimited: true, quota: 1}\n  d: {qota: 5}\n  unlimited: {quota: 5}\n  E: {quota: 5}\n  f: {quota: -1}\n  g: {unlimited: maybe}\n  h: {quota: 5, priority: 1.5}\n", []string{
			"lab.yaml:3: tiers.a: says no `quota`", "lab.yaml:4: tiers.b.longest: 2m0s is longer than the whole quota of 1m0s",
			"lab.yaml:5: tiers.c: an unlimited tier has neither", `lab.yaml:6: tiers.d.qota: unknown key; did you mean "quota"?`,
			`lab.yaml:7: tiers.unlimited: the tier "unlimited" is always there`, "lab.yaml:8: tiers.E: a tier's name is",
			"lab.yaml:9: tiers.f.quota: must be from 1s", "lab.yaml:10: tiers.g.unlimited: must be true or false",
			"lab.yaml:11: tiers.h.priority: must be a whole number from 0 to 100"}},

		{"a Space with nothing", "spaces: [{}]\n", []string{"lab.yaml:1: spaces[0]: says no `folder`", "lab.yaml:1: spaces[0]: says neither `address`"}},
		{"a Space that is a word", "spaces: [demo]\n", []string{"lab.yaml:1: spaces[0]: must be a Space, one"}},
		{"Spaces", `spaces:
  - folder: nowhere
    address: 7860
    visibility: hidden
  - folder: demo
    name: Demo Space
    host: h
    members: [ada]
  - folder: demo
    host: H
    python: demo
    variables: {A-B: 1, GOOD: [1]}
    secrets: {NO: {env: SPACEHOST_TEST_UNSET}, NIL: {file: gone}, TWO: {env: A, file: b}, ODD: {enviro: A}}
`, []string{
			"lab.yaml:2: spaces[0].folder: ", `lab.yaml:3: spaces[0].address: "7860" is not an address such as 127.0.0.1:7860`,
			`lab.yaml:4: spaces[0].visibility: "hidden" is not known here; there are public, protected, private`,
			`lab.yaml:6: spaces[1].name: "Demo Space" cannot be`, "lab.yaml:8: spaces[1].members: only a private Space has members",
			"lab.yaml:10: spaces[2].host: h is a name of spaces[1] as well", "lab.yaml:11: spaces[2].python: ",
			"lab.yaml:12: spaces[2].variables.A-B: cannot be the name of a variable", "lab.yaml:12: spaces[2].variables.GOOD: must be one value",
			"lab.yaml:13: spaces[2].secrets.NO.env: the variable SPACEHOST_TEST_UNSET is not set", "lab.yaml:13: spaces[2].secrets.NIL.file: ",
			"lab.yaml:13: spaces[2].secrets.TWO: has more than one source", `lab.yaml:13: spaces[2].secrets.ODD.enviro: unknown key; there are env, file`}},
		{"two of an address and a name", "spaces:\n- {folder: demo, name: a, address: '127.0.0.1:2'}\n- {folder: demo, name: a, address: '127.0.0.1:2'}\n", []string{
			"lab.yaml:3: spaces[1]: its address 127.0.0.1:2 is that of spaces[0] as well", "lab.yaml:3: spaces[1]: its name a is that of spaces[0] as well"}},

		{"two of a folder's name", "spaces:\n- {folder: demo, address: '127.0.0.1:2'}\n- {folder: demo, name: demo, address: '127.0.0.1:3'}\n- {folder: demo, name: other, address: '127.0.0.1:4'}\n- {folder: ./demo/, address: gone}\n", []string{
			"lab.yaml:3: spaces[1]: its name demo is that of spaces[0] as well: give one of them another `name`", `lab.yaml:5: spaces[3].address: "gone" is not an address`,
			"lab.yaml:5: spaces[3]: its name demo is that of spaces[0] as well"}},

		{"people", demo + `people:
  - name: Ada
    tier: gold
  - tokens: [sph_secret, "sha256:12", "` + hash + `"]
  - {name: ben, tokens: ["` + strings.ToUpper(hash) + `"]}
  - {name: ben, tiers: free}
`, []string{
			`lab.yaml:3: people[0].name: "Ada" cannot be a name`, `lab.yaml:4: people[0].tier: no tier "gold" in quota 2026-04`,
			"lab.yaml:5: people[1].tokens[0]: this is a token itself", "lab.yaml:5: people[1].tokens[1]: this is not sha256:", "lab.yaml:5: people[1]: says no `name`",
			"lab.yaml:6: people[2].tokens[0]: this token stands twice", `lab.yaml:7: people[3].tiers: unknown key; did you mean "tier"?`,
			"lab.yaml:7: people[3].name: ben stands twice"}},
		{"people by names that mean others", demo + "people:\n- {name: local}\n- {name: 203.0.113.7}\n- {name: locale}\n- {name: 1.2.3}\n", []string{
			"lab.yaml:3: people[0].name: \"local\" cannot be a name: where accounts are named", "lab.yaml:4: people[1].name: \"203.0.113.7\" cannot be a name"}},
		{"what a person has of their own", demo + "people:\n- {name: ada, quota: 0}\n- {name: ben, longest: soon, priority: 101}\n- {name: cy, concurrency: -1, qota: 5}\n", []string{
			"lab.yaml:3: people[0].quota: must be from 1s", "lab.yaml:4: people[1].longest: must be from 1s", "lab.yaml:4: people[1].priority: must be a whole number from 0 to 100",
			"lab.yaml:5: people[2].concurrency: must be a whole", `lab.yaml:5: people[2].qota: unknown key; did you mean "quota"?`}},
		{"members", "people: [{name: amelia}]\nspaces:\n- folder: demo\n  address: 127.0.0.1:1\n  visibility: private\n  members: [ameliaa, zoe]\n", []string{
			`lab.yaml:6: spaces[0].members[0]: "ameliaa" is nobody under ` + "`people`" + `; did you mean "amelia"?`, "lab.yaml:6: spaces[0].members[1]: \"zoe\" is nobody under `people`; there are amelia"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, _, err := configIn(t, row.text)
			wrong, ok := errors.AsType[*configError](err)
			if !ok || len(wrong.problems) != len(row.want) {
				t.Fatalf("got %v\nwant %d mistakes", err, len(row.want))
			}
			for i, p := range wrong.problems {
				if !strings.HasPrefix(p.String(), row.want[i]) {
					t.Errorf("got  %s\nwant %s", p, row.want[i])
				}
			}
			if strings.Contains(err.Error(), "sph_secret") {
				t.Error("a token is shown")
			}
		})
	}
}

// TestTheGuidesExampleIsRight reads docs/serve.md, which uses every key.
func TestTheGuidesExampleIsRight(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "serve.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	dir := t.TempDir()
	for _, folder := range []string{"hello", "survey", "drafts"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text = strings.Replace(text, "/usr/bin/python3", "python", 1)
	for name, content := range map[string]string{"lab.yaml": text, "survey.key": "key\n", "python": "#!"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("LAB_HF_TOKEN", "from the environment")
	t.Chdir(dir)
	got, warnings, err := loadConfig("lab.yaml")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := settings{
		file: "lab.yaml", state: "/var/lib/spacehost", gpus: setting{"auto", "lab.yaml:4: gpus.machine"}, hardware: setting{"auto", "lab.yaml:7: gpus.hardware"}, preset: setting{"2026-08", "lab.yaml:10: quota"},
		localTier: setting{"unauthenticated", "lab.yaml: tiers"}, share: 1, endUninvited: true, perSpace: 2, queueTimeout: time.Minute, warmFor: 5 * time.Minute, keep: 90 * 24 * time.Hour,
		address: setting{"127.0.0.1:7860", "`address` in lab.yaml:21"}, console: setting{"127.0.0.1:7870", "`console` in lab.yaml:22"},
		mode: "direct", consoleURL: "https://console.lab.example", byName: true, hosts: []string{"gpu.lab.example"}, proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		metricsFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")},
		ownTiers: []quota.Tier{
			{Name: "student", Quota: 10 * time.Minute, Longest: 2 * time.Minute, Authenticated: "regular", Priority: 2, Concurrency: 1},
			{Name: "staff", Unlimited: true, Authenticated: "regular", Priority: 1}, {Name: "unauthenticated", Quota: time.Minute},
		},
		people: []people.Declared{
			{Name: "ada", Tier: "staff", Tokens: []string{"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}, {Name: "ben", Tier: "student", Overrides: people.Overrides{Quota: new(20 * time.Minute)}},
		},
		spaces: []spaceSettings{
			{dir: filepath.Join(dir, "hello"), host: "hello.lab.example", visibility: public, variables: map[string]string{}, secrets: map[string]string{}},
			{dir: filepath.Join(dir, "survey"), name: "survey-2026", addr: setting{"0.0.0.0:7861", "`spaces[1].address` in lab.yaml:34"}, visibility: protected, concurrency: new(1),
				variables: map[string]string{"LANGUAGE": "fi", "PAGES": "3"}, secrets: map[string]string{"HF_TOKEN": "from the environment", "API_KEY": "key"}},
			{dir: filepath.Join(dir, "drafts"), host: "drafts.lab.example", visibility: private, members: []string{"ada"}, python: filepath.Join(dir, "python"),
				variables: map[string]string{}, secrets: map[string]string{}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestTheSampleIsRight: examples/lab.yaml and the Spaces that it names, as --check looks at them.
func TestTheSampleIsRight(t *testing.T) {
	s, warnings, err := loadConfig(filepath.Join("..", "..", "examples", "lab.yaml"))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	opened, err := s.openSpaces()
	if err != nil || len(opened) != 2 || opened[1].Name != "drafts" || !reflect.DeepEqual(s.spaces[1].members, []string{"ada"}) {
		t.Errorf("Spaces: %v (%v)", opened, err)
	}
}

// A Secret that everybody may read is worth a word; a private Space's members are all people where none are named.
func TestWarningsOfAConfiguration(t *testing.T) {
	text := "people: [{name: ada}, {name: ben}]\nspaces: [{folder: demo, address: ':0', visibility: private, secrets: {A: open, B: {file: b}}}]\n"
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"lab.yaml": 0o644, "b": 0o604} {
		content := text
		if name == "b" {
			content = "in a file\r\n"
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "demo"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s, warnings, err := loadConfig("lab.yaml")
	if err != nil || len(warnings) != 2 || !strings.HasPrefix(warnings[0], "lab.yaml:2: spaces[0].secrets.A: this Secret stands in a file") ||
		!strings.Contains(warnings[1], "chmod o-r "+filepath.Join(dir, "b")) {
		t.Fatalf("got %q (%v)", warnings, err)
	}
	got := s.spaces[0]
	if !reflect.DeepEqual(got.secrets, map[string]string{"A": "open", "B": "in a file"}) || !reflect.DeepEqual(got.members, []string{"ada", "ben"}) || got.addr.value != "127.0.0.1:0" {
		t.Errorf("got %+v", got)
	}
}
