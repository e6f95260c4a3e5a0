package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const twoSpaces = "spaces:\n- {folder: demo, address: ':0'}\n- {folder: demo, name: other, address: ':0'}\n"

// TestLoadReportsIsolationMistakes checks line, key and remedy of each mistake in the isolation keys.
func TestLoadReportsIsolationMistakes(t *testing.T) {
	space := func(keys string) string {
		return "spaces:\n- folder: demo\n  address: ':0'\n  " + strings.ReplaceAll(keys, "\n", "\n  ") + "\n"
	}
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		{"unknown words", "isolation: high\negress: everything\n" + space("isolation: [none]\nsource: copy\ncache: on\negress: no_ne"), []string{
			`lab.yaml:1: isolation: unknown level "high"; use one of none, files, namespaces, users, auto`, `lab.yaml:2: egress: "everything" is neither hub, none, all nor a host name`,
			"lab.yaml:6: spaces[0].isolation: must be a single value", `lab.yaml:7: spaces[0].source: unknown value "copy"; use one of overlay, rw, ro`, `lab.yaml:8: spaces[0].cache: unknown value "on"; use one of shared, private`,
			`lab.yaml:9: spaces[0].egress: "no_ne" is neither`}},
		{"keys of a Space at the top", demo + "source: rw\nmounts: [/srv]\n", []string{"lab.yaml:2: source: unknown key", "lab.yaml:3: mounts: unknown key"}},
		{"egress", demo + "egress: {names: [pypi.org, 1.2.3.4, '*'], ports: [443, http, 0], prots: [1]}\n", []string{
			`lab.yaml:2: egress.names[1]: "1.2.3.4" is an IP address`, `lab.yaml:2: egress.names[2]: "*" is neither`, `lab.yaml:2: egress.ports[1]: port "http" is not a whole number`, `lab.yaml:2: egress.ports[2]: port "0" is`, `lab.yaml:2: egress.prots: unknown key; known keys: names, ports`}},
		{"empty egress", "egress: []\n" + space("egress: {}"), []string{"lab.yaml:1: egress: is empty; use `egress: none` to allow no connections", "lab.yaml:5: spaces[0].egress: is empty"}},
		{"empty lists of egress", "egress: {names: [], ports: [443]}\n" + space("egress: {ports: []}"), []string{"lab.yaml:1: egress.names: is empty", "lab.yaml:5: spaces[0].egress.ports: is empty"}},
		{"reach", "reach: [10.0.4.7, 'db:5432']\n" + space("reach: 10.0.4.7:5432"), []string{
			`lab.yaml:1: reach[0]: "10.0.4.7" is not IP:port; give an IP address and a port`, `lab.yaml:1: reach[1]: "db:5432" is not`, "lab.yaml:5: spaces[0].reach: must be a list of private addresses"}},
		{"limits", "limits: {memory: 32, cpu: many, ram: 1GiB}\n" + space("limits: {output: 1MB, processes: 1}"), []string{
			"lab.yaml:1: limits.memory: must be a size of at least 64MiB with its unit", "lab.yaml:1: limits.cpu: must be a number of cores", "lab.yaml:1: limits.ram: unknown key; known keys: connections, cpu, disk, log_size, memory, output, processes, upload_keep, upload_size",
			"lab.yaml:5: spaces[0].limits.output: must be a rate", "lab.yaml:5: spaces[0].limits.processes: must be a whole number from 16"}},
		{"limits of all Spaces", demo + "total_limits: {output: 1MB/s, memory: 1}\nlog: {size: 1MB, keep: 1h}\n", []string{
			"lab.yaml:2: total_limits.output: unknown key; known keys: cpu, disk, log_size, memory, processes", "lab.yaml:2: total_limits.memory: must be a size of at least 64MiB",
			"lab.yaml:3: log.size: must be a size of at least 5MiB", "lab.yaml:3: log.keep: must be from 1d"}},
		{"limits, a word", demo + "limits: none\n", []string{"lab.yaml:2: limits: must be a mapping of limits (connections, cpu,"}},
		{"paths", space("mounts:\n- models\n- /proc/1\n- /nowhere:rw\n- /\ndata: gone"), []string{
			`lab.yaml:5: spaces[0].mounts[0]: "models" is not an absolute path`, "lab.yaml:6: spaces[0].mounts[1]: /proc/1 is in /proc", "lab.yaml:7: spaces[0].mounts[2]: cannot mount /nowhere: no such file or directory; create it",
			"lab.yaml:8: spaces[0].mounts[3]: / is the whole file system", "lab.yaml:9: spaces[0].data: "}},
		{"the state folder", "state: /usr/share\n" + space("mounts: [/usr]\ndata: /usr/share"), []string{"lab.yaml:5: spaces[0].mounts[0]: /usr contains files of the state folder /usr/share", "lab.yaml:6: spaces[0].data: /usr/share contains files"}},
		{"calls", twoSpaces[:len(twoSpaces)-2] + ", calls: [demo, other, othr, zzzzzz]}\n", []string{
			`lab.yaml:3: spaces[1].calls[2]: unknown Space "othr"; did you mean "other"?`, `lab.yaml:3: spaces[1].calls[3]: unknown Space "zzzzzz"; Spaces defined in this file: demo, other`}},
		{"keys that a lower level does not enforce", space("isolation: none\negress: none\nreach: ['10.0.4.7:1']\nsource: overlay\ndata: true\ncache: private\nmounts: [/usr]\ncalls: []"), []string{
			"lab.yaml:5: spaces[0].egress: requires `isolation: namespaces`, but line 4 sets `spaces[0].isolation: none`; change line 4, or remove this key",
			"lab.yaml:6: spaces[0].reach: requires `isolation: namespaces`", "lab.yaml:7: spaces[0].source: requires `isolation: namespaces`", "lab.yaml:8: spaces[0].data: requires `isolation: namespaces`",
			"lab.yaml:9: spaces[0].cache: requires `isolation: files`", "lab.yaml:10: spaces[0].mounts: requires `isolation: files`", "lab.yaml:11: spaces[0].calls: requires `isolation: namespaces`"}},
		{"the level files", space("isolation: files\nmounts: [/usr]\ncache: private\nsource: ro"), []string{"lab.yaml:7: spaces[0].source: requires `isolation: namespaces`, but line 4 sets `spaces[0].isolation: files`"}},
		{"keys at the top, for all Spaces", "isolation: none\negress: none\n" + twoSpaces, []string{"lab.yaml:2: egress: requires `isolation: namespaces`, but line 1 sets `isolation: none`; change line 1, or give that Space its own `egress: hub`"}},
		{"nodes for all Spaces", "isolation: files\ngpu_nodes: lease\n" + twoSpaces, []string{"lab.yaml:2: gpu_nodes: requires `isolation: namespaces`, but line 1 sets `isolation: files`; change line 1, or give that Space its own `gpu_nodes: always`"}},
		{"an unknown value of nodes", space("gpu_nodes: leased"), []string{`lab.yaml:4: spaces[0].gpu_nodes: unknown value "leased"`}},
		{"a default for one Space", "egress: none\nreach: ['10.0.4.7:1']\n" + space("isolation: none"), []string{"lab.yaml:1: egress: requires `isolation: namespaces`, but line 6 sets `spaces[0].isolation: none`"}},
		{"users without uids", "isolation: users\n" + twoSpaces, []string{"lab.yaml:1: isolation: the level users requires uids for the Spaces; add the key `users`"}},
		{"too few uids", "users: 200000-200000\n" + twoSpaces, []string{"lab.yaml:1: users: 200000-200000 has 1 uids for 2 Spaces; give a range"}},
		{"a bad range", "isolation: users\nusers: 5\n" + twoSpaces, []string{`lab.yaml:2: users: "5" is not a range of uids; give FIRST-LAST`}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, _, err := isolationIn(t, row.text, "", true)
			wrong, ok := errors.AsType[*FileError](err)
			if !ok || len(wrong.Problems) != len(row.want) {
				t.Fatalf("got %v\nwant %d mistakes", err, len(row.want))
			}
			for i, p := range wrong.Problems {
				if !strings.HasPrefix(p.String(), row.want[i]) {
					t.Errorf("got  %s\nwant %s", p, row.want[i])
				}
			}
		})
	}
}

// isolationIn is like configIn, with the state folder of --state, and with or without the rights of root.
func isolationIn(t *testing.T, text, state string, isRoot bool) (Settings, []string, error) {
	t.Helper()
	_, _, _ = configIn(t, text) // writes the file
	return load("lab.yaml", state, isRoot)
}

// TestIsolationDefaults checks that a Space takes what it does not set from the top level, and that `serve` demands
// namespaces.
func TestIsolationDefaults(t *testing.T) {
	_, _, err := isolationIn(t, `isolation: auto
egress: [huggingface.co]
reach: ["10.0.4.7:5432", "10.0.4.8:1"]
limits: {memory: 32GiB, cpu: 4}
gpu_nodes: lease
users: 200000-200999
spaces:
- {folder: demo, address: ':0'}
- folder: demo
  name: other
  address: ':0'
  isolation: users
  egress: {ports: [8443, 443]}
  reach: ["10.0.4.8:1", "10.0.4.9:1"]
  limits: {memory: 8GiB, output: 1MB/s}
  source: ro
  data: kept
  cache: private
  mounts: [/usr, "/usr/share:rw"]
  calls: [demo]
- {folder: demo, name: third, address: ':0', isolation: none, egress: hub, gpu_nodes: always}
`, "", true)
	if err == nil || !strings.Contains(err.Error(), "kept is not a folder") {
		t.Fatalf("a missing folder for /data: got %v", err)
	}
	if err := os.Mkdir("kept", 0o700); err != nil {
		t.Fatal(err)
	}
	s, warnings, err := load("lab.yaml", "", true)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	folder, _ := filepath.Abs("kept")
	reach := func(all ...string) (to []netip.AddrPort) {
		for _, text := range all {
			to = append(to, netip.MustParseAddrPort(text))
		}
		return to
	}
	if places := s.Spaces[1].Places; places["limits.cpu"].String() != "lab.yaml:4: limits.cpu" || places["limits.memory"].String() != "lab.yaml:15: spaces[1].limits.memory" || s.Spaces[0].Places["isolation"].String() != "lab.yaml:1: isolation" {
		t.Errorf("places %v", places)
	}
	want := []IsolationSettings{
		{Isolation: IsolationAuto, Egress: Egress{EgressListed, []string{"huggingface.co"}, nil}, Reach: reach("10.0.4.7:5432", "10.0.4.8:1"), Limits: Limits{Memory: 32 << 30, CPU: 4}, NodesByLease: true},
		{Isolation: IsolationUsers, Egress: Egress{EgressListed, nil, []uint16{443, 8443}}, Reach: reach("10.0.4.8:1", "10.0.4.9:1", "10.0.4.7:5432"), Limits: Limits{Memory: 8 << 30, CPU: 4, Output: 1e6},
			SourceMode: SourceReadOnly, Data: Data{true, folder}, PrivateCache: true, Mounts: []Mount{{"/usr", false}, {"/usr/share", true}}, Calls: []string{"demo"}, NodesByLease: true},
		{Isolation: IsolationNone, Reach: reach("10.0.4.7:5432", "10.0.4.8:1"), Limits: Limits{Memory: 32 << 30, CPU: 4}},
	}
	for i, space := range s.Spaces {
		space.Places = nil
		if !reflect.DeepEqual(space.IsolationSettings, want[i]) {
			t.Errorf("Space %d\ngot  %+v\nwant %+v", i, space.IsolationSettings, want[i])
		}
	}
	if (s.Users != UIDs{200000, 200999}) || s.UsersPlace.Line != 6 {
		t.Errorf("users %v at %v", s.Users, s.UsersPlace)
	}
}

// TestIsolationWithoutKeys checks the defaults of `serve`, and the place that a start names if the machine lacks the level.
func TestIsolationWithoutKeys(t *testing.T) {
	s, _, err := configIn(t, demo)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Spaces[0].IsolationSettings
	mistake := got.Places["isolation"].Mistake("cannot isolate")
	if got.Places = nil; !reflect.DeepEqual(got, IsolationSettings{Isolation: IsolationNamespaces}) || (s.Users != UIDs{}) {
		t.Errorf("got %+v", got)
	}
	if wrong, ok := errors.AsType[*FileError](mistake); !ok || wrong.Error() != "lab.yaml:1: spaces[0].isolation: cannot isolate" {
		t.Errorf("got %v", mistake)
	}
}

// TestUsersRequireRoot checks that a host without the rights of root refuses the key.
func TestUsersRequireRoot(t *testing.T) {
	if _, _, err := isolationIn(t, demo+"users: 200000-200999\n", "", false); err == nil || err.Error() != "lab.yaml:2: users: only root can run Spaces with other uids; start spacehost as root, or remove `users`" {
		t.Errorf("got %v", err)
	}
}

// TestUnusedUsersWarn checks that uids which no Space uses are a warning: the Spaces still run as root.
func TestUnusedUsersWarn(t *testing.T) {
	_, warnings, err := isolationIn(t, demo+"users: 200000-200999\n", "", true)
	if want := "lab.yaml:2: users: no Space uses these uids; set `isolation: users`, or remove `users`"; err != nil || len(warnings) != 1 || warnings[0] != want {
		t.Errorf("got %q, %v, want %s", warnings, err, want)
	}
}

// TestStateFlagProtectsMounts checks mounts against the state folder of --state, which overrides the file's.
func TestStateFlagProtectsMounts(t *testing.T) {
	text := "state: /var/lib/elsewhere\nspaces: [{folder: demo, address: ':0', mounts: [/usr/share]}]\n"
	if _, _, err := isolationIn(t, text, "", true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := load("lab.yaml", "/usr/share/state", true); err == nil || !strings.Contains(err.Error(), "state folder /usr/share/state") {
		t.Errorf("got %v", err)
	}
}

// TestHomeMountWarns checks that a mount of the home folder is allowed with a warning.
func TestHomeMountWarns(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	_, warnings, err := isolationIn(t, "state: /var/lib/spacehost\nspaces:\n- folder: demo\n  address: ':0'\n  mounts: ["+home+"]\n", "", true)
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "lab.yaml:5: spaces[0].mounts[0]: "+home+" contains the home folder") {
		t.Errorf("got %v, %q", err, warnings)
	}
}

// TestIsolationFlags checks that the flags of `run` give the same values as the keys, and that each mistake names its flag.
func TestIsolationFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", filepath.Join(dir, "home"))
	for _, folder := range []string{"kept", "home/.ssh"} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	given := IsolationFlags{Isolation: "auto", Egress: "pypi.org,:443", Data: "kept", Mounts: []string{"/usr", filepath.Join(dir, "home")}, Limits: []string{"memory=8GiB", "cpu=2"}}
	got, warnings, err := given.Parse("/var/lib/spacehost")
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "--mount: "+dir+"/home contains the home folder") || got.Places["limits.cpu"].String() != "--limit" {
		t.Fatalf("got %v, %q, %v", got.Places, warnings, err)
	}
	got.Places = nil
	if want := (IsolationSettings{Isolation: IsolationAuto, Egress: Egress{EgressListed, []string{"pypi.org"}, []uint16{443}}, Limits: Limits{Memory: 8 << 30, CPU: 2},
		Data: Data{true, filepath.Join(dir, "kept")}, Mounts: []Mount{{"/usr", false}, {filepath.Join(dir, "home"), false}}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for want, change := range map[string]func(*IsolationFlags){
		`--isolation: unknown level "some"; use one of`:                                                               func(f *IsolationFlags) { f.Isolation = "some" },
		"--isolation: the level users is only available with":                                                         func(f *IsolationFlags) { f.Isolation = "users" },
		`--egress: "x" is neither hub, none, all nor a host name`:                                                     func(f *IsolationFlags) { f.Egress = "x" },
		"--limit: memory: must be a size":                                                                             func(f *IsolationFlags) { f.Limits = []string{"memory=1"} },
		`--mount: "models" is not an absolute path`:                                                                   func(f *IsolationFlags) { f.Mounts = []string{"models"} },
		"--mount: " + dir + " contains files of the state":                                                            func(f *IsolationFlags) { f.Mounts = []string{dir} },
		"--mount: " + dir + "/home/.ssh holds the SSH keys":                                                           func(f *IsolationFlags) { f.Mounts = []string{dir + "/home/.ssh"} },
		"--data: " + dir + "/gone is not a folder; create it":                                                         func(f *IsolationFlags) { f.Data = "gone" },
		"--data: /proc is in /proc":                                                                                   func(f *IsolationFlags) { f.Data = "/proc" },
		"--egress: requires --isolation namespaces, but --isolation is files; change --isolation, or remove --egress": func(f *IsolationFlags) { f.Isolation, f.Egress = "files", "none" },
		"--mount: requires --isolation files, but --isolation is none":                                                func(f *IsolationFlags) { f.Isolation, f.Mounts = "none", []string{"/usr"} },
	} {
		flags := IsolationFlags{Isolation: "auto", Egress: "hub"}
		change(&flags)
		if _, _, err := flags.Parse(filepath.Join(dir, "state")); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: got %v, want %s", flags, err, want)
		}
	}
	if !slices.Equal(LimitKeys(), []string{"connections", "cpu", "disk", "log_size", "memory", "output", "processes", "upload_keep", "upload_size"}) {
		t.Errorf("limits %v", LimitKeys())
	}
}
