package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/notify"
	"spacehost/quota"
)

// differenceOf loads two texts of a file and returns the lines of their difference.
func differenceOf(t *testing.T, before, after string) (lines []string, all []Change) {
	t.Helper()
	dir := t.TempDir()
	for _, folder := range []string{"demo", "moved", "other"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	load := func(text string) Settings {
		if err := os.WriteFile("lab.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := load("lab.yaml", "", true)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	from, to := load(before), load(after)
	tiersFrom, errFrom := from.Tiers()
	tiersTo, errTo := to.Tiers()
	if errFrom != nil || errTo != nil {
		t.Fatal(errFrom, errTo)
	}
	all = Difference(from, to, tiersFrom, tiersTo)
	for _, c := range all {
		lines = append(lines, strings.ReplaceAll(c.String(), dir+"/", ""))
	}
	return lines, all
}

const hashA = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
const hashB = "sha256:3cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// TestDifference checks the line of each kind of change, and the order of the lines.
func TestDifference(t *testing.T) {
	for _, row := range []struct {
		name, before, after string
		want                []string
	}{
		{"places are no difference", "spaces:\n- {folder: demo, address: ':1', secrets: {A: x}}\n", "\n\nspaces:\n\n- {address: ':1', folder: demo, secrets: {A: x}}\n", nil},
		{"order is no difference", "people: [{name: a, tokens: [" + hashA + ", " + hashB + "]}, {name: b}]\nspaces:\n- {folder: demo, address: ':1'}\n- {folder: other, address: ':2'}\n",
			"people: [{name: b}, {name: a, tokens: [" + hashB + ", " + hashA + "]}]\nspaces:\n- {folder: other, address: ':2'}\n- {folder: demo, address: ':1'}\n", nil},
		{"keys of a Space", "spaces:\n- {folder: demo, name: x, address: ':1'}\n",
			"spaces:\n- {folder: moved, name: x, address: ':2', host: x.example, path: /x, visibility: private, members: [ada], concurrency: 2, egress: none, limits: {memory: 8GiB}, data: true, source: ro, mounts: [/usr]}\n", []string{
				"~ space x: folder demo -> moved (the Space restarts)", "~ space x: address 127.0.0.1:1 -> 127.0.0.1:2 (the Space restarts)", "~ space x: host none -> x.example (the Space restarts)",
				"~ space x: path none -> /x", "~ space x: visibility public -> private", "~ space x: members none -> ada", "~ space x: concurrency none -> 2", "~ space x: egress hub -> none (the Space restarts)",
				"~ space x: limits none -> memory=8GiB (the Space restarts)", "~ space x: source default -> ro (the Space restarts)", "~ space x: data false -> true (the Space restarts)", "~ space x: mounts none -> /usr (the Space restarts)"}},
		{"defaults of the top level", "spaces:\n- {folder: demo, address: ':1'}\n", "limits: {cpu: 2}\nspaces:\n- {folder: demo, address: ':1'}\n", []string{"~ space demo: limits none -> cpu=2 (the Space restarts)"}},
		{"liveness", "liveness: {after: 60}\nspaces:\n- {folder: demo, address: ':1'}\n- {folder: other, address: ':2', liveness: {after: 60s}}\n", "spaces:\n- {folder: demo, address: ':1', liveness: {after: 60, restart_after: never}}\n- {folder: other, address: ':2', liveness: {after: 1m}}\n", []string{
			"~ space demo: liveness after=1m,restart_after=2m -> after=1m,restart_after=never"}},
		{"bar", "spaces:\n- {folder: demo, address: ':1'}\n- {folder: other, address: ':2', bar: true}\n", "bar: false\nspaces:\n- {folder: demo, address: ':1'}\n- {folder: other, address: ':2', bar: true}\n", []string{"~ space demo: bar true -> false"}},
		{"Variables and Secrets", "spaces:\n- {folder: demo, address: ':1', variables: {A: marker1, B: marker2}, secrets: {C: marker3, D: marker4}}\n",
			"spaces:\n- {folder: demo, address: ':1', variables: {A: marker5, N: marker6}, secrets: {C: marker7}}\n", []string{
				"~ space demo: variables.A changed (the Space restarts)", "~ space demo: variables.B set -> none (the Space restarts)", "~ space demo: variables.N none -> set (the Space restarts)",
				"~ space demo: secrets.C changed (the Space restarts)", "~ space demo: secrets.D set -> none (the Space restarts)"}},
		{"people, tiers and Spaces", "tiers: {student: {quota: 100}}\npeople: [{name: a, tokens: [" + hashA + "]}, {name: b}]\nspaces:\n- {folder: demo, address: ':1'}\n",
			"tiers: {student: {quota: 2h}, staff: {unlimited: true}}\npeople: [{name: a, tier: staff, quota: 90, tokens: [" + hashB + "]}, {name: c}]\nspaces:\n- {folder: other, address: ':1'}\n", []string{
				"+ tier staff (unlimited)", "~ tier student: quota 1m40s -> 2h", "~ person a: tier free -> staff", "~ person a: tokens 1 removed -> 1 added", "~ person a: quota none -> 1m30s",
				"- person b", "+ person c (free)", "- space demo", "+ space other (other)"}},
		{"the host", "keep: 90d\nhosts: [a.example]\nspaces:\n- {folder: demo, address: ':1'}\n", "keep: forever\ngpus: {large: 1/2, per_space: 1}\nconsole: ':3'\naddress: ':4'\nspaces:\n- {folder: demo, address: ':1', isolation: none}\n", []string{
			"~ host: gpus.large 1 -> 1/2 (needs a restart of the host)", "~ host: gpus.per_space 0 -> 1", "~ host: keep 90d -> forever", "~ host: console 127.0.0.1:7870 -> 127.0.0.1:3 (needs a restart of the host)",
			"~ host: hosts a.example -> none", "~ space demo: isolation namespaces -> none (needs a restart of the host)"}},
		{"an agent", "spaces:\n- {folder: demo, address: ':1'}\n", "agent: local\nspaces:\n- {folder: demo, address: ':1'}\n", []string{
			"~ host: agent none -> local (needs a restart of the host)", "~ host: orphan_after none -> 10m (needs a restart of the host)"}},
		{"the time of an agent", "agent: local\nspaces:\n- {folder: demo, address: ':1'}\n", "agent: local\norphan_after: 1h\nspaces:\n- {folder: demo, address: ':1'}\n", []string{
			"~ host: orphan_after 10m -> 1h (needs a restart of the host)"}},
		{"a front", "spaces:\n- {folder: demo, address: ':1'}\n", "cluster: {listen: '10.0.0.5:7443'}\nspaces:\n- {folder: demo, address: ':1'}\n", []string{
			"~ host: cluster.listen none -> 10.0.0.5:7443 (needs a restart of the host)"}},
		{"the nodes of a Space", "cluster: {listen: ':7'}\nspaces:\n- {folder: demo, address: ':1', on: h200}\n- {folder: other, address: ':2', on: [a, b]}\n", "cluster: {listen: ':7'}\nspaces:\n- {folder: demo, address: ':1', on: [h200, gpu1]}\n- {folder: other, address: ':2', on: [b, a]}\n", []string{
			"~ space demo: on h200 -> gpu1,h200 (the Space restarts)"}},
		{"the shared address", "address: ':4'\nspaces:\n- {folder: demo, host: a.example}\n", "address: ':5'\nspaces:\n- {folder: demo, host: a.example}\n", []string{
			"~ host: address 127.0.0.1:4 -> 127.0.0.1:5 (needs a restart of the host)"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, all := differenceOf(t, row.before, row.after)
			if !slices.Equal(got, row.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(row.want, "\n  "))
			}
			for _, c := range all {
				if text := c.String() + c.From + c.To; strings.Contains(text, "marker") || strings.Contains(text, "sha256:") {
					t.Errorf("a value is shown: %+v", c)
				}
			}
		})
	}
}

// TestSelectedGPUs: a list of GPUs selects some of the machine's, and a change of it needs a restart of the host.
func TestSelectedGPUs(t *testing.T) {
	before, _, err := configIn(t, demo)
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := configIn(t, demo+"gpus: {machine: [0, GPU-9a4c6130]}\n")
	if err != nil || after.GPUs.Value != "auto" || !slices.Equal(after.OnlyGPUs, []string{"0", "GPU-9a4c6130"}) {
		t.Fatalf("got %+v, %v, %v", after.GPUs, after.OnlyGPUs, err)
	}
	changes := Difference(before, after, quota.Tiers{}, quota.Tiers{})
	if len(changes) == 0 || changes[0].Effect != NewHost || changes[0].String() != "~ host: gpus.machine auto -> 0,GPU-9a4c6130 (needs a restart of the host)" {
		t.Errorf("changes: %v", changes)
	}
}

// TestWebhooks: URLs and secrets come from the file, the environment or files, and a difference shows none of them.
func TestWebhooks(t *testing.T) {
	const secret = "whsec_c2VjcmV0IG9mIHR3ZW50eS1mb3VyIGJ5dGVz"
	t.Setenv("LAB_SLACK", "https://hooks.slack.com/services/PRIVATE")
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _, err := configIn(t, demo+"webhooks:\n- {url: {env: LAB_SLACK}, format: slack, events: [space.down]}\n- {url: 'https://b/PRIVATE', secret_file: "+file+"}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []notify.Hook{
		{Name: "hooks.slack.com", URL: "https://hooks.slack.com/services/PRIVATE", Format: notify.Slack, Kinds: []notify.Kind{notify.SpaceDown}},
		{Name: "b", URL: "https://b/PRIVATE", Secret: secret, Format: notify.JSON},
	}
	if !reflect.DeepEqual(before.Webhooks, want) || !slices.Contains(before.Sources, file) {
		t.Errorf("webhooks %+v, sources %v", before.Webhooks, before.Sources)
	}
	after, _, err := configIn(t, demo+"webhooks:\n- {url: 'https://hooks.slack.com/services/OTHER', format: slack, events: [space.down, disk.low]}\n- {url: 'https://hooks.slack.com/PRIVATE'}\n"+
		"people: [{name: ada, webhook: 'https://ada/PRIVATE'}]\n")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range Difference(before, after, quota.Tiers{}, quota.Tiers{}) {
		if c.Subject == "webhook" {
			lines = append(lines, c.String())
		}
	}
	if want := []string{
		"- webhook b", "~ webhook hooks.slack.com: url changed", "~ webhook hooks.slack.com: events space.down -> disk.low,space.down",
		"+ webhook hooks.slack.com#2 (all)", "+ webhook person ada (all)",
	}; !slices.Equal(lines, want) {
		t.Errorf("difference:\n%s", strings.Join(lines, "\n"))
	}
}
