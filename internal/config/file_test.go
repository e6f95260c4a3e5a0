package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/internal/web"
	"spacehost/internal/web/certtest"
	"spacehost/quota"
)

// configIn writes a configuration next to a folder "demo" and loads it.
func configIn(t *testing.T, text string) (Settings, []string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "demo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lab.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	return Load("lab.yaml", "")
}

const demo = "spaces: [{folder: demo, address: 127.0.0.1:1}]\n"

// TestLoadReportsMistakes checks line, key and text of each mistake. Load must report all mistakes of a file, and none
// that only follows from another.
func TestLoadReportsMistakes(t *testing.T) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	rows := []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"lab.yaml:1: the file is empty; add at least one Space under `spaces`"}},
		{"comments only", "# nothing\n", []string{"lab.yaml:1: the file is empty"}},
		{"a list", "- a\n", []string{"lab.yaml:1: must be a mapping of settings; write one `key: value` per line"}},
		{"invalid YAML", demo + "state: a: b\n", []string{"lab.yaml:2: invalid YAML (mapping values"}},
		{"a mistake below the start of its block", "spaces:\n  - folder: demo\n    address: 127.0.0.1:1\n    visibility private\n    members: [a]\nconsole: 127.0.0.1:2\n", []string{"lab.yaml:4: invalid YAML"}},
		{"an indentation", demo + "tiers:\n  a: {quota: 5}\n  b: {quota: 6}\n c: {quota: 7}\n  d: {quota: 8}\n", []string{"lab.yaml:5: invalid YAML"}},
		{"a tab", demo + "gpus:\n\tlarge: 1\nquota: 2026-04\n", []string{"lab.yaml:3: invalid YAML"}},
		{"a quote, a bracket", "state: 'a\n" + demo, []string{"lab.yaml:1: invalid YAML"}},
		{"an unclosed list", "hosts: [a,\n  b\n" + demo, []string{"lab.yaml:1: invalid YAML"}},
		{"an unknown anchor", demo + "hosts:\n- &a b\n- *c\n- *a\n", []string{"lab.yaml:4: invalid YAML (unknown anchor 'c' referenced)"}},
		{"a second document", demo + "---\na: b\nc: d: e\n", []string{"lab.yaml:4: invalid YAML"}},
		{"two documents", demo + "---\n" + demo, []string{"lab.yaml:2: a second YAML document begins here"}},
		{"no Spaces", "spaces: []\n", []string{"lab.yaml:1: no Spaces are defined; add at least one under `spaces`"}},
		{"unknown key", demo + "quueue_timeout: 5\n", []string{`lab.yaml:2: quueue_timeout: unknown key; did you mean "queue_timeout"?`}},
		{"far from any key", demo + "zzzzzz: 5\n", []string{`lab.yaml:2: zzzzzz: unknown key; known keys: address, admin_groups, agent, bar, by_name, cluster, console, console_url, drain, egress, gpu_nodes, gpus, hosts,`}},
		{"a duplicate key", "quota: 2026-04\n" + demo + "quota: 2026-08\n", []string{"lab.yaml:3: quota: duplicate key, first set in line 1; remove one of them"}},
		{"no value", demo + "state:\n", []string{"lab.yaml:2: state: has no value"}},
		{"a number for text", demo + "state: 12\n", []string{"lab.yaml:2: state: YAML does not read 12 as text; put quotes around it"}},
		{"a list for a word", demo + "quota: [a]\n", []string{"lab.yaml:2: quota: must be a single value"}},
		{"a word for a list", demo + "hosts: a\n", []string{"lab.yaml:2: hosts: must be a list of host names"}},
		{"merge keys", "x: &x {state: a}\n<<: *x\n" + demo, []string{"lab.yaml:1: x: unknown key", "lab.yaml:2: <<: unknown key"}},

		{"preset", demo + "quota: 2025\npeople: [{name: ada, tier: gold}]\n", []string{`lab.yaml:2: quota: no quota preset "2025", known are: 2026-04, 2026-08`}},
		{"GPUs", demo + "gpus: {machine: mock:2xZ9, large: 1/9, uninvited: kill}\n", []string{`lab.yaml:2: gpus.machine: simulate "2xZ9"`, "lab.yaml:2: gpus.large: \"1/9\" is not a share of a GPU", `lab.yaml:2: gpus.uninvited: unknown value "kill"; use end or show`}},
		{"webhooks", demo + "webhooks:\n- {url: hooks.slack.com/secret, format: xml}\n- {secret: short, events: [space.down, gpu.gone]}\n- {url: 'https://a/', secret: whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz, secret_file: x, events: []}\n", []string{
			"lab.yaml:3: webhooks[0].url: this is not a URL of http or https", `lab.yaml:3: webhooks[0].format: unknown value "xml"; use one of json, slack`,
			"lab.yaml:4: webhooks[1].secret: the secret is not whsec_ and 24 to 64 bytes in base64; create one with: echo whsec_$(openssl rand -base64 32)", `lab.yaml:4: webhooks[1].events[1]: unknown value "gpu.gone"; use one of space.down, space.restarted`,
			"lab.yaml:5: webhooks[2].secret_file: the webhook has a secret already", "lab.yaml:5: webhooks[2].events: has no event; list at least one, or remove the key to receive all",
		}},
		{"a webhook without a URL", demo + "webhooks: [{format: slack}]\n", []string{"lab.yaml:2: webhooks[0]: has no `url`; add one"}},
		{"selected GPUs", demo + "gpus: {machine: [0, two, GPU-9a, 0]}\n", []string{`lab.yaml:2: gpus.machine[1]: "two" names no GPU; use an index such as 0 or a UUID such as GPU-9a4c6130`, "lab.yaml:2: gpus.machine[3]: 0 is listed twice; remove one"}},
		{"no GPU selected", demo + "gpus: {machine: []}\n", []string{"lab.yaml:2: gpus.machine: has no GPU; list at least one, or use auto for all, or none"}},
		{"hardware and limits", "gpus: {hardware: a100, per_space: -1}\nspaces:\n- {folder: demo, address: '127.0.0.1:1', concurrency: many}\ntiers: {a: {quota: 5, concurrency: 1001}}\n", []string{
			`lab.yaml:1: gpus.hardware: unknown hardware "a100"; use auto, h200 or rtx-pro-6000`, "lab.yaml:1: gpus.per_space: must be a whole number from 0 to 1000",
			"lab.yaml:3: spaces[0].concurrency: must be a whole number", "lab.yaml:4: tiers.a.concurrency: must be a whole number"}},
		{"the key of the same setting", demo + "gpus: {unleased: kill}\n", []string{`lab.yaml:2: gpus.unleased: unknown value "kill"; use end or show`}},
		{"GPUs, a word", demo + "gpus: many\n", []string{`lab.yaml:2: gpus: unknown GPUs "many"; use auto, none, or simulated ones such as mock:2xH200`}},
		{"timeout", demo + "queue_timeout: soon\n", []string{`lab.yaml:2: queue_timeout: must be a duration from 1s to 24h0m0s, such as 90s, 10m or a number of seconds, not "soon"`}},
		{"keep", demo + "keep: 12h\n", []string{`lab.yaml:2: keep: must be from 1d to 36500d, such as 90d, or forever, not "12h"`}},
		{"liveness", demo + "liveness: {after: 0, restart_after: 25h, restart: never}\n", []string{
			`lab.yaml:2: liveness.after: must be from 1s to 24h, such as 90s, or never, not "0"`, `lab.yaml:2: liveness.restart_after: must be from 1s to 24h, such as 90s, or never, not "25h"`, `lab.yaml:2: liveness.restart: unknown key`}},
		{"liveness, a word", demo + "liveness: 30s\n", []string{"lab.yaml:2: liveness: must be a mapping with the keys after and restart_after"}},
		{"agent", demo + "agent: gpu2\norphan_after: 9s\n", []string{`lab.yaml:2: agent: unknown value "gpu2"; use local, or remove the key to start the Spaces without an agent`, `lab.yaml:3: orphan_after: must be a duration from 10s to 24h0m0s, such as 90s, 10m or a number of seconds, not "9s"`}},
		{"cluster", demo + "cluster: 10.0.0.5:7443\n", []string{"lab.yaml:2: cluster: must be a mapping with the key listen"}},
		{"cluster without an address", demo + "cluster: {}\n", []string{"lab.yaml:2: cluster: has no `listen`; set the address for agents, such as 10.0.0.5:7443"}},
		{"cluster, a wrong address", demo + "cluster: {listen: gpu1, join: x}\n", []string{`lab.yaml:2: cluster.listen: "gpu1" is not a valid address`, "lab.yaml:2: cluster.join: unknown key; "}},
		{"cluster at an address in use", "console: 0.0.0.0:7443\n" + demo + "cluster: {listen: 127.0.0.1:7443}\n", []string{"lab.yaml:1: `cluster.listen` 127.0.0.1:7443 collides with `console` 0.0.0.0:7443; choose another port"}},
		{"cluster at the address of a Space", demo + "cluster: {listen: 127.0.0.1:1}\n", []string{"lab.yaml:1: spaces[0]: address 127.0.0.1:1 is already used by cluster.listen (127.0.0.1:1); choose another port"}},
		{"agent, a list", demo + "agent: [local]\n", []string{"lab.yaml:2: agent: must be a single value"}},
		{"a time without an agent", demo + "orphan_after: 10m\n", []string{"lab.yaml:2: orphan_after: has no effect without an agent; add `agent: local`, or remove `orphan_after`"}},
		{"timeout below a second", demo + "queue_timeout: 0.5\n", []string{"lab.yaml:2: queue_timeout: must be a duration from 1s"}},
		{"hosts", demo + "hosts: [good, 'http://bad', 10.0.0.1, 'a:80']\n", []string{
			`lab.yaml:2: hosts[1]: "http://bad" is not a host name`, `lab.yaml:2: hosts[2]: "10.0.0.1" is not`, `lab.yaml:2: hosts[3]: "a:80" is not`}},
		{"proxies", demo + "trusted_proxies:\n- 10.0.0.0/8\n- proxy\n- 0.0.0.0/0\n", []string{
			`lab.yaml:4: trusted_proxies[1]: "proxy": this is neither`, `lab.yaml:5: trusted_proxies[2]: "0.0.0.0/0": this trusts all addresses`}},
		{"networks", demo + "metrics_from: [prometheus]\n", []string{`lab.yaml:2: metrics_from[0]: "prometheus": this is neither`}},
		{"console", demo + "console: 127.0.0.1:1\n", []string{"lab.yaml:1: spaces[0]: address 127.0.0.1:1 is already used by console"}},
		{"equal addresses in different notations", "console: 127.0.0.1:7950\nspaces:\n- {folder: demo, name: a, address: '0.0.0.0:7950'}\n- {folder: demo, name: b, address: 'localhost:7950'}\n- {folder: demo, name: c, address: '[::]:7950'}\n- {folder: demo, name: d, address: ':07950'}\n- {folder: demo, name: e, address: '127.0.0.2:7950'}\n- {folder: demo, name: f, address: '[::1]:7950'}\n- {folder: demo, name: g, address: '[::ffff:127.0.0.2]:7950'}\n", []string{
			"lab.yaml:3: spaces[0]: address 0.0.0.0:7950 is already used by console (127.0.0.1:7950); choose another port",
			"lab.yaml:4: spaces[1]: address localhost:7950 is already used by console", "lab.yaml:5: spaces[2]: address [::]:7950 is already used by console", "lab.yaml:6: spaces[3]: address 127.0.0.1:07950 is already used by console",
			"lab.yaml:9: spaces[6]: address [::ffff:127.0.0.2]:7950 is already used by spaces[4] (127.0.0.2:7950); choose another port"}},
		{"the common address and the console", "address: localhost:7950\nconsole: '[::]:7950'\nspaces: [{folder: demo, host: h}]\n", []string{"lab.yaml:1: `address` localhost:7950 collides with `console` [::]:7950; choose another port for one of them"}},
		{"port 0 never collides", "console: ':0'\nspaces: [{folder: demo, address: '0.0.0.0:0'}, {folder: demo, address: '127.0.0.1:0', name: b, zzz: 1}]\n", []string{"lab.yaml:2: spaces[1].zzz: unknown key"}},

		{"tiers", demo + "tiers:\n  a: {}\n  b: {quota: 60, longest: 2m}\n  c: {unlimited: true, quota: 1}\n  d: {qota: 5}\n  unlimited: {quota: 5}\n  E: {quota: 5}\n  f: {quota: -1}\n  g: {unlimited: maybe}\n  h: {quota: 5, priority: 1.5}\n", []string{
			"lab.yaml:3: tiers.a: has no `quota`; set the seconds of GPU time", "lab.yaml:4: tiers.b.longest: 2m0s exceeds the tier's quota of 1m0s; lower `longest` or raise `quota`",
			"lab.yaml:5: tiers.c: an unlimited tier has neither", `lab.yaml:6: tiers.d.qota: unknown key; did you mean "quota"?`,
			`lab.yaml:7: tiers.unlimited: the tier "unlimited" is predefined; choose another name`, "lab.yaml:8: tiers.E: invalid tier name; use 1 to 32 of",
			"lab.yaml:9: tiers.f.quota: must be a duration from 1s", "lab.yaml:10: tiers.g.unlimited: must be true or false",
			"lab.yaml:11: tiers.h.priority: must be a whole number from 0 to 100"}},

		{"an empty Space", "spaces: [{}]\n", []string{"lab.yaml:1: spaces[0]: has no `folder`; add the path", "lab.yaml:1: spaces[0]: has neither `address` nor `host` nor `url`; add"}},
		{"a Space that is a word", "spaces: [demo]\n", []string{"lab.yaml:1: spaces[0]: must be a mapping that describes a Space; write one"}},
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
    env_file: gone.env
`, []string{
			"lab.yaml:2: spaces[0].folder: ", `lab.yaml:3: spaces[0].address: "7860" is not a valid address; give host:port, such as 127.0.0.1:7860`,
			`lab.yaml:4: spaces[0].visibility: unknown value "hidden"; use one of public, protected, private`,
			`lab.yaml:6: spaces[1].name: invalid Space name "Demo Space"; use`, "lab.yaml:8: spaces[1].members: only a private Space has members; set `visibility: private`, or remove `members`",
			"lab.yaml:10: spaces[2].host: host name h is already used by spaces[1]; choose another name", "lab.yaml:11: spaces[2].python: ",
			"lab.yaml:12: spaces[2].variables.A-B: is not a valid variable name; use letters", "lab.yaml:12: spaces[2].variables.GOOD: must be a single value",
			"lab.yaml:13: spaces[2].secrets.NO.env: environment variable SPACEHOST_TEST_UNSET is not set; set it", "lab.yaml:13: spaces[2].secrets.NIL.file: ",
			"lab.yaml:13: spaces[2].secrets.TWO: has more than one source; keep either", `lab.yaml:13: spaces[2].secrets.ODD.enviro: unknown key; known keys: env, file`,
			"lab.yaml:14: spaces[2].env_file: cannot read "}},
		{"sub-paths", "spaces:\n- {folder: demo, name: a, host: a, path: hello}\n- {folder: demo, name: b, host: b, path: /hello/}\n- {folder: demo, name: c, host: c, path: /a b}\n- {folder: demo, name: d, host: d, path: /__spacehost/x}\n- {folder: demo, name: e, host: e, path: /lab/../x}\n- {folder: demo, name: f, host: f, path: /lab/demo-1.0}\n", []string{
			`lab.yaml:2: spaces[0].path: invalid sub-path "hello"; write it as /hello`, `lab.yaml:3: spaces[1].path: invalid sub-path "/hello/"; write`,
			`lab.yaml:4: spaces[2].path: invalid`, `lab.yaml:5: spaces[3].path: invalid`, `lab.yaml:6: spaces[4].path: invalid`}},
		{"duplicate address and name", "spaces:\n- {folder: demo, name: a, address: '127.0.0.1:2'}\n- {folder: demo, name: a, address: '127.0.0.1:2'}\n", []string{
			"lab.yaml:3: spaces[1]: address 127.0.0.1:2 is already used by spaces[0] (127.0.0.1:2); choose another port", "lab.yaml:3: spaces[1]: Space name a is already used by spaces[0]; choose another `name`"}},

		{"duplicate folder name", "spaces:\n- {folder: demo, address: '127.0.0.1:2'}\n- {folder: demo, name: demo, address: '127.0.0.1:3'}\n- {folder: demo, name: other, address: '127.0.0.1:4'}\n- {folder: ./demo/, address: gone}\n", []string{
			"lab.yaml:3: spaces[1]: Space name demo is already used by spaces[0]; choose another `name`", `lab.yaml:5: spaces[3].address: "gone" is not a valid address`,
			"lab.yaml:5: spaces[3]: Space name demo is already used by spaces[0]"}},

		{"people", demo + `people:
  - name: Ada
    tier: gold
  - tokens: [sph_secret, "sha256:12", "` + hash + `"]
  - {name: ben, tokens: ["` + strings.ToUpper(hash) + `"]}
  - {name: ben, tiers: free}
`, []string{
			`lab.yaml:3: people[0].name: "Ada" cannot be a name`, `lab.yaml:4: people[0].tier: no tier "gold" in quota 2026-10`,
			"lab.yaml:5: people[1].tokens[0]: this is a token itself", "lab.yaml:5: people[1].tokens[1]: this is not sha256:", "lab.yaml:5: people[1]: has no `name`; add one",
			"lab.yaml:6: people[2].tokens[0]: duplicate token; list each token once", `lab.yaml:7: people[3].tiers: unknown key; did you mean "tier"?`,
			"lab.yaml:7: people[3].name: duplicate person ben; keep one entry"}},
		{"reserved names of people", demo + "people:\n- {name: local}\n- {name: 203.0.113.7}\n- {name: locale}\n- {name: 1.2.3}\n", []string{
			"lab.yaml:3: people[0].name: \"local\" cannot be a name: where accounts are named", "lab.yaml:4: people[1].name: \"203.0.113.7\" cannot be a name"}},
		{"overrides of a person", demo + "people:\n- {name: ada, quota: 0}\n- {name: ben, longest: soon, priority: 101}\n- {name: cy, concurrency: -1, qota: 5}\n", []string{
			"lab.yaml:3: people[0].quota: must be a duration from 1s", "lab.yaml:4: people[1].longest: must be a duration from 1s", "lab.yaml:4: people[1].priority: must be a whole number from 0 to 100",
			"lab.yaml:5: people[2].concurrency: must be a whole", `lab.yaml:5: people[2].qota: unknown key; did you mean "quota"?`}},
		{"members", "people: [{name: amelia}]\nspaces:\n- folder: demo\n  address: 127.0.0.1:1\n  visibility: private\n  members: [Amelia, local]\n", []string{
			`lab.yaml:6: spaces[0].members[0]: "Amelia" cannot be a name`, `lab.yaml:6: spaces[0].members[1]: "local" cannot be a name`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, _, err := configIn(t, row.text)
			wrong, ok := errors.AsType[*FileError](err)
			if !ok || len(wrong.Problems) != len(row.want) {
				t.Fatalf("got %v\nwant %d mistakes", err, len(row.want))
			}
			for i, p := range wrong.Problems {
				if !strings.HasPrefix(p.String(), row.want[i]) {
					t.Errorf("got  %s\nwant %s", p, row.want[i])
				}
			}
			if strings.Contains(err.Error(), "sph_secret") {
				t.Error("the error contains a token")
			}
		})
	}
}

// TestServeGuideExample loads the example of docs/operator-guide.md, which has every key of the top level and of a Space.
func TestServeGuideExample(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "operator-guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	dir := t.TempDir()
	for _, folder := range []string{"hello", "survey", "drafts", "models", "out"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text = strings.NewReplacer("/usr/bin/python3", "python", "/srv/", dir+"/").Replace(text)
	for name, content := range map[string]string{"lab.yaml": text, "survey.key": "key\n", "webhook.secret": "whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz\n", "survey.env": "API_KEY=unused\nMAIL_KEY='k 2'\n", "python": "#!"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	certtest.Write(t, 1, filepath.Join(dir, "lab.pem"), filepath.Join(dir, "lab.key"))
	t.Setenv("LAB_HF_TOKEN", "from the environment")
	t.Setenv("LAB_SLACK_URL", "https://hooks.slack.com/services/T0/B0/x")
	t.Chdir(dir)
	got, warnings, err := load("lab.yaml", "", true)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if len(got.SourceStates) != len(got.Sources) {
		t.Errorf("states of the files: %v", got.SourceStates)
	}
	got.SourceStates = nil
	for i := range got.Spaces {
		got.Spaces[i].Places = nil // TestIsolationDefaults checks these
	}
	reach := netip.MustParseAddrPort("10.0.4.7:5432")
	isolation := IsolationSettings{Isolation: IsolationNamespaces, Reach: []netip.AddrPort{reach}, Limits: Limits{32 << 30, 2000, 4, 50 << 30, 256, 1e6, 2 << 30, 24 * time.Hour, 80 << 20}}
	want := Settings{
		File: "lab.yaml", Sources: []string{"lab.yaml", filepath.Join(dir, "webhook.secret"), filepath.Join(dir, "survey.key"), filepath.Join(dir, "survey.env")}, State: "/var/lib/spacehost", GPUs: Setting{"auto", "lab.yaml:4: gpus.machine"}, Hardware: Setting{"auto", "lab.yaml:7: gpus.hardware"}, Preset: Setting{"2026-08", "lab.yaml:10: quota"},
		LocalTier: Setting{"unauthenticated", "lab.yaml: tiers"}, Share: 1, EndUnleased: true, PerSpace: 2, QueueTimeout: time.Minute, WarmFor: 5 * time.Minute, Drain: 2 * time.Minute, Agent: LocalAgent, OrphanAfter: 20 * time.Minute, Cluster: Cluster{Setting{"10.0.0.5:7443", "`cluster.listen` in lab.yaml:22"}}, Pools: guidePools, Keep: 90 * 24 * time.Hour,
		TotalLimits: Limits{Memory: 96 << 30, Processes: 8000, CPU: 12, Disk: 200 << 30, LogSize: 1 << 30}, Log: Log{100e6, 90 * 24 * time.Hour},
		Address: Setting{"127.0.0.1:7860", "`address` in lab.yaml:30"}, Console: Setting{"127.0.0.1:7870", "`console` in lab.yaml:31"},
		IdentityMode: "direct", ConsoleURL: web.Address{Scheme: "https", Host: "console.lab.example"}, TLS: TLS{filepath.Join(dir, "lab.pem"), filepath.Join(dir, "lab.key")}, ByName: true, Hosts: []string{"gpu.lab.example"}, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		MetricsFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")},
		OwnTiers: []quota.Tier{
			{Name: "student", Quota: 10 * time.Minute, Longest: 2 * time.Minute, Authenticated: "regular", Priority: 2, Concurrency: 1},
			{Name: "staff", Unlimited: true, Authenticated: "regular", Priority: 1}, {Name: "unauthenticated", Quota: time.Minute},
		},
		Webhooks: []notify.Hook{
			{Name: "hooks.slack.com", URL: "https://hooks.slack.com/services/T0/B0/x", Format: notify.Slack, Kinds: []notify.Kind{notify.SpaceDown, notify.GPULost}},
			{Name: "ops", URL: "https://ops.lab.example/spacehost", Secret: "whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz", Format: notify.JSON},
			{Name: "person ben", URL: "https://chat.lab.example/ben", Format: notify.JSON, Person: "ben"},
		},
		People: []people.Declared{
			{Name: "ada", Tier: "staff", Admin: true, Group: "operators", Tokens: []string{"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}, {Name: "ben", Tier: "student", Overrides: people.Overrides{Quota: new(20 * time.Minute)}},
		},
		AdminGroups: []string{"operators"},
		Spaces: []SpaceSettings{
			{Dir: filepath.Join(dir, "hello"), Host: "hello.lab.example", On: []string{"h200", "gpu2"}, Visibility: Public, Variables: map[string]string{}, Secrets: map[string]string{}, Liveness: DefaultLiveness, Bar: true, IsolationSettings: isolation},
			{Dir: filepath.Join(dir, "survey"), Name: "survey-2026", Addr: Setting{"0.0.0.0:7861", "`spaces[1].address` in lab.yaml:60"}, SubPath: "/survey", Visibility: Protected, Concurrency: new(1),
				Variables: map[string]string{"LANGUAGE": "fi", "PAGES": "3"}, Secrets: map[string]string{"HF_TOKEN": "from the environment", "API_KEY": "key", "MAIL_KEY": "k 2"}, Liveness: DefaultLiveness, Bar: true, IsolationSettings: isolation},
			{Dir: filepath.Join(dir, "drafts"), URL: web.Address{Scheme: "https", Host: "drafts.lab.example"}, Visibility: Private, Members: []string{"ada"}, Python: filepath.Join(dir, "python"),
				Variables: map[string]string{}, Secrets: map[string]string{}, Liveness: Liveness{After: 30 * time.Second}, IsolationSettings: IsolationSettings{
					Isolation: IsolationUsers, Egress: Egress{EgressListed, []string{"huggingface.co", "*.hf.co"}, nil}, Reach: []netip.AddrPort{netip.MustParseAddrPort("10.0.4.8:80"), reach},
					Limits: Limits{8 << 30, 2000, 4, 50 << 30, 256, 1e6, 2 << 30, 24 * time.Hour, 80 << 20}, SourceMode: SourceReadOnly, Data: Data{Keep: true}, PrivateCache: true, NodesByLease: true,
					Mounts: []Mount{{filepath.Join(dir, "models"), false}, {filepath.Join(dir, "out"), true}}, Calls: []string{"survey-2026"}}},
		},
		Users: UIDs{200000, 200999}, UsersPlace: Place{"lab.yaml", 51, "users"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestSampleConfiguration loads examples/lab.yaml and opens its Spaces, as --check does.
func TestSampleConfiguration(t *testing.T) {
	s, warnings, err := Load(filepath.Join("..", "..", "examples", "lab.yaml"), "")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	opened, err := s.OpenSpaces()
	if err != nil || len(opened) != 2 || opened[1].Name != "drafts" || !reflect.DeepEqual(s.Spaces[1].Members, []string{"ada"}) {
		t.Errorf("Spaces: %v (%v)", opened, err)
	}
}

// TestMembersOfTheOperator checks that a member may be a person whom only the operator adds, and that the file's author is
// warned of a possible typo.
func TestMembersOfTheOperator(t *testing.T) {
	s, warnings, err := configIn(t, "people: [{name: amelia}]\nspaces:\n- folder: demo\n  address: 127.0.0.1:1\n  visibility: private\n  members: [ameliaa, zoe]\n")
	want := []string{
		"lab.yaml:6: spaces[0].members[0]: member ameliaa is not defined in this file, so only `spacehost user add ameliaa` makes this person known; did you mean \"amelia\"?",
		"lab.yaml:6: spaces[0].members[1]: member zoe is not defined in this file, so only `spacehost user add zoe` makes this person known; people defined in this file: amelia",
	}
	if err != nil || !reflect.DeepEqual(warnings, want) || !reflect.DeepEqual(s.Spaces[0].Members, []string{"ameliaa", "zoe"}) {
		t.Errorf("got %v, warnings %q, err %v\nwant warnings %q", s.Spaces, warnings, err, want)
	}
}

// TestLoadWarnings checks the warnings about world-readable Secrets. A private Space that lists no members has all people.
func TestLoadWarnings(t *testing.T) {
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
	s, warnings, err := Load("lab.yaml", "")
	if err != nil || len(warnings) != 2 || !strings.HasPrefix(warnings[0], "lab.yaml:2: spaces[0].secrets.A: every user of this machine may read this Secret in lab.yaml; run chmod o-r lab.yaml, or use") ||
		!strings.Contains(warnings[1], "chmod o-r "+filepath.Join(dir, "b")) {
		t.Fatalf("got %q (%v)", warnings, err)
	}
	got := s.Spaces[0]
	if !reflect.DeepEqual(got.Secrets, map[string]string{"A": "open", "B": "in a file"}) || got.Members != nil || got.Addr.Value != "127.0.0.1:0" {
		t.Errorf("got %+v", got)
	}
}

// TestGroups: a group makes its people admins, and only a group that somebody has.
func TestGroups(t *testing.T) {
	const spaces = "spaces: [{folder: demo, address: 127.0.0.1:1}]\n"
	s, _, err := configIn(t, "people: [{name: ada, group: ops}, {name: ben, group: lab}, {name: cleo, admin: true}, {name: dana}]\nadmin_groups: [ops]\n"+spaces)
	if err != nil {
		t.Fatal(err)
	}
	for name, admin := range map[string]bool{"ada": true, "ben": false, "cleo": true, "dana": false, "nobody": false} {
		if s.IsAdmin(name) != admin {
			t.Errorf("%s is an admin: %v", name, !admin)
		}
	}
	if s.GroupOf("ben") != "lab" || s.GroupOf("dana") != "" {
		t.Errorf("groups: %q and %q", s.GroupOf("ben"), s.GroupOf("dana"))
	}
	for text, want := range map[string]string{
		"people: [{name: ada, group: lab}]\nadmin_groups: [ops]\n": "lab.yaml:2: admin_groups[0]: no person has `group: ops`",
		"people: [{name: ada, group: 'a b'}]\n":                    "lab.yaml:1: people[0].group: ",
	} {
		if _, _, err := configIn(t, text+spaces); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
