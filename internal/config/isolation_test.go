package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// parsed is the text of a parser's result, or of its error.
func parsed[T fmt.Stringer](value T, err error) string {
	if err != nil {
		return err.Error()
	}
	return value.String()
}

// TestParseIsolationValues checks each parser of the isolation keys. Flags and files share the parsers.
func TestParseIsolationValues(t *testing.T) {
	level := func(text string) string { return parsed(ParseIsolation(text)) }
	source := func(text string) string { return parsed(ParseSourceMode(text)) }
	egress := func(text string) string { return parsed(ParseEgress(text)) }
	reach := func(text string) string { return parsed(ParseReach(text)) }
	mount := func(text string) string { return parsed(ParseMount(text)) }
	uids := func(text string) string { return parsed(ParseUIDs(text)) }
	data := func(text string) string {
		d, err := ParseData(text, "/base")
		return fmt.Sprint(d, err)
	}
	for _, row := range []struct {
		parse      func(string) string
		text, want string
	}{
		{level, "none", "none"}, {level, "files", "files"}, {level, "namespaces", "namespaces"}, {level, "users", "users"}, {level, "auto", "auto"},
		{level, "namespace", `unknown level "namespace"; did you mean "namespaces"?`}, {level, "", `unknown level ""; use one of none, files, namespaces, users, auto`},
		{source, "overlay", "overlay"}, {source, "rw", "rw"}, {source, "ro", "ro"}, {source, "copy", `unknown value "copy"; use one of overlay, rw, ro`}, {source, "default", `unknown value "default"`},

		{egress, "hub", "hub"}, {egress, "none", "none"}, {egress, "all", "all"}, {egress, "HuggingFace.co, *.hf.co", "huggingface.co,*.hf.co"},
		{egress, ":443,:80,:443", ":80,:443"}, {egress, "pypi.org,:8443", "pypi.org,:8443"},
		{egress, "nnoe", `"nnoe" is neither hub, none, all nor a host name`}, {egress, "hub,none", `"hub" is neither`}, {egress, "", `"" is neither`}, {egress, "*", `"*" is neither`}, {egress, "*.co", `"*.co" is neither`},
		{egress, "a.*.org", `"a.*.org" is neither`}, {egress, "https://pypi.org", `"https://pypi.org" is neither`}, {egress, "8.8.8.8", `"8.8.8.8" is an IP address, but rules contain host names; use`}, {egress, "fd00::1", `"fd00::1" is an IP address`},
		{egress, ":0", `port "0" is not a whole number from 1 to 65535`}, {egress, ":65536", `port "65536" is not`}, {egress, ":http", `port "http" is not`},

		{reach, "10.0.4.7:5432", "10.0.4.7:5432"}, {reach, "[fd00::7]:1", `"[fd00::7]:1" is not an IPv4 address; give one`}, {reach, "[::ffff:10.0.4.7]:1", "10.0.4.7:1"},
		{reach, "db.lab:5432", `"db.lab:5432" is not IP:port; give an IP address and a port`}, {reach, "10.0.4.7", `"10.0.4.7" is not IP:port`}, {reach, "10.0.4.7:0", `"10.0.4.7:0" has port 0`}, {reach, "10.0.0.0/8:1", `"10.0.0.0/8:1" is not IP:port`},
		{reach, "127.0.0.1:1", `"127.0.0.1:1" is a loopback address, which inside a Space`}, {reach, "[::ffff:127.0.0.1]:1", `"[::ffff:127.0.0.1]:1" is a loopback`}, {reach, "[::1]:1", `"[::1]:1" is a loopback`},
		{reach, "0.0.0.0:1", `"0.0.0.0:1" is not the address of one machine`}, {reach, "224.0.0.1:1", `"224.0.0.1:1" is not the address`}, {reach, "[fe80::1%eth0]:1", `"[fe80::1%eth0]:1" is not an IPv4 address`},

		{mount, "/srv/models", "/srv/models"}, {mount, "/srv/models:ro", "/srv/models"}, {mount, "/srv/../out/:rw", "/out:rw"}, {mount, "/a:b", "/a:b"},
		{mount, "models", `"models" is not an absolute path; give one such as`}, {mount, "", `"" is not an absolute path`}, {mount, ":rw", `":rw" is not an absolute path`}, {mount, "~/x", `"~/x" is not an absolute path`},
		{data, "true", "{true } <nil>"}, {data, "false", "{false } <nil>"}, {data, "kept", "{true /base/kept} <nil>"}, {data, "/srv/d/", "{true /srv/d} <nil>"}, {data, " ", "{false } is empty; give true, or"},

		{uids, "200000-200999", "200000-200999"}, {uids, "1000-1000", "1000-1000"}, {uids, "200000", `"200000" is not a range of uids; give FIRST-LAST`}, {uids, "a-b", `"a-b" is not a range`}, {uids, "-1-5", `"-1-5" is not a range`},
		{uids, "0-5000", `"0-5000" is not within 1000-4294967293`}, {uids, "5000-4294967295", `"5000-4294967295" is not within`}, {uids, "3000-2000", `"3000-2000" ends before it begins`}, {uids, "60000-70000", `"60000-70000" contains 65534, the uid of nobody`},
	} {
		if got := row.parse(row.text); !strings.HasPrefix(got, row.want) || row.want == row.text && got != row.want {
			t.Errorf("%q: got %s, want %s", row.text, got, row.want)
		}
	}
}

func TestParseLimits(t *testing.T) {
	for text, want := range map[string]Limits{
		"memory=8GiB": {Memory: 8 << 30}, "memory=1.5 GB": {Memory: 15e8}, "processes=2000": {Processes: 2000}, "cpu=0.5": {CPU: 0.5}, "cpu=4": {CPU: 4},
		"disk=50GiB": {Disk: 50 << 30}, "connections=256": {Connections: 256}, "output=1MB/s": {Output: 1e6}, "output=64KiB/s": {Output: 64 << 10},
		"upload_size=200MB": {UploadSize: 200e6}, "upload_keep=90m": {UploadKeep: 90 * time.Minute}, "upload_keep=7d": {UploadKeep: 7 * 24 * time.Hour}, "upload_keep=forever": {UploadKeep: Forever},
		"log_size=8MiB": {LogSize: 8 << 20},
	} {
		var got Limits
		if key, err := got.Parse(text); err != nil || got != want || !strings.HasPrefix(text, key+"=") {
			t.Errorf("%s: got %q %+v (%v)", text, key, got, err)
		}
	}
	for text, want := range map[string]string{
		"memory": `"memory" is not KEY=VALUE`, "memorry=1GiB": `unknown limit "memorry"; did you mean "memory"?`, "": `"" is not KEY=VALUE`,
		"memory=8": `memory: must be a size of at least 64MiB with its unit, such as 8GiB or 500MB, not "8"`, "memory=1MiB": "memory: must be a size of at least 64MiB", "memory=-1GiB": "memory: must be a size", "memory=9999999PB": "memory: must be a size", "memory=1kiB": "memory: must be a size",
		"disk=1e9B": "disk: must be a size", "output=1MB": `output: must be a rate of at least 1kB/s, such as 1MB/s, not "1MB"`, "output=1MB/h": "output: must be a rate",
		"processes=15": "processes: must be a whole number from 16 to 4194304", "processes=2k": "processes: must be a whole number", "connections=0": "connections: must be a whole number from 1",
		"cpu=0": "cpu: must be a number of cores from 0.1 to 4096", "cpu=NaN": "cpu: must be", "cpu=inf": "cpu: must be", "cpu=50%": "cpu: must be",
		"upload_keep=1m": `upload_keep: must be from 10m to 36500d, such as 24h or 7d, or forever, not "1m"`, "upload_keep=0": "upload_keep: must be from", "upload_keep=-2d": "upload_keep: must be from", "upload_keep=99999999999d": "upload_keep: must be from",
		"upload_size=10": "upload_size: must be a size of at least 1KiB", "log_size=1MB": "log_size: must be a size of at least 8MiB",
	} {
		before := Limits{Memory: 1, Processes: 2, CPU: 3, Disk: 4, Connections: 5, Output: 6, UploadSize: 7, UploadKeep: 8, LogSize: 9}
		got := before
		if _, err := got.Parse(text); err == nil || !strings.HasPrefix(err.Error(), want) || got != before {
			t.Errorf("%s: got %+v (%v), want %s", text, got, err, want)
		}
	}
}

// TestLimitsByKey checks that each limit of a Space replaces the default, and that each other one keeps it.
func TestLimitsByKey(t *testing.T) {
	defaults := Limits{1, 2, 3, 4, 5, 6, 7, 8, 9}
	if got := (Limits{}).or(defaults); got != defaults {
		t.Errorf("got %+v", got)
	}
	if own := (Limits{11, 12, 13, 14, 15, 16, 17, 18, 19}); own.or(defaults) != own {
		t.Errorf("got %+v", own.or(defaults))
	}
}

func TestEgressPorts(t *testing.T) {
	for text, want := range map[string]string{"hub": "[80 443 8080] false", "none": "[] false", "all": "[] true", ":5432,:443": "[443 5432] false", "pypi.org": "[80 443 8080] false", "pypi.org,:1": "[1] false"} {
		e, err := ParseEgress(text)
		if ports, all := e.EffectivePorts(); err != nil || fmt.Sprint(ports, all) != want {
			t.Errorf("%s: got %v %t (%v)", text, ports, all, err)
		}
	}
}

// TestCheckMount checks that no mount shows the host's keys or leads out of the Space, by any path.
func TestCheckMount(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	state := filepath.Join(home, "state", "spacehost")
	for _, dir := range []string{".ssh", "models", "state/spacehost/keys", "to"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"proc": "/proc/self", "keys": ".ssh", "db": "state/spacehost", "fine": "models"} {
		if err := os.Symlink(target, filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/": "/ is the whole file system", "/proc": "/proc is in /proc, which leads out of the Space", "/proc/1/root": "/proc/1/root is in /proc", "/sys/fs": "/sys/fs is in /sys", "/dev/null": "/dev/null is in /dev", "/run": "/run is in /run", "/var/run": "/var/run is in /",
		home + "/gone": "cannot mount " + home + "/gone: no such file or directory; create it", home + "/.ssh": home + "/.ssh holds the SSH keys", home + "/state": home + "/state contains files of the state folder", home + "/db": home + "/db contains files of the state folder",
		state: state + " contains files", state + "/keys": state + "/keys contains files", home + "/keys": home + "/keys holds the SSH keys", home + "/proc": home + "/proc is in /proc", home + "/models": "", home + "/fine": "", "/usr": "",
	} {
		warning, err := CheckMount(path, state)
		if warning != "" || (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %q, %v; want %q", path, warning, err, want)
		}
	}
	for _, path := range []string{home, filepath.Dir(home)} {
		if warning, err := CheckMount(path, "/var/lib/elsewhere"); err != nil || !strings.HasPrefix(warning, path+" contains the home folder "+home) {
			t.Errorf("%s: got %q, %v", path, warning, err)
		}
	}
}

// TestCheckSpaceFolder checks that the folder of a Space does not contain the host's keys, by any path.
func TestCheckSpaceFolder(t *testing.T) {
	base := t.TempDir()
	home, space, linked := filepath.Join(base, "home"), filepath.Join(base, "home", "space"), filepath.Join(base, "linked")
	t.Setenv("HOME", home)
	if err := os.MkdirAll(filepath.Join(space, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(space, linked); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ path, state, warning, want string }{
		{space, filepath.Join(home, "state"), "", ""},
		{filepath.Join(space, "state", "app"), filepath.Join(space, "state"), "", ""},
		{space, filepath.Join(space, "state"), "", "the Space's folder " + space + " contains the state folder"},
		{space, filepath.Join(linked, "new", "state"), "", "the Space's folder " + space + " contains the state folder"},
		{linked, filepath.Join(space, "state"), "", "the Space's folder " + linked + " contains the state folder"},
		{home, filepath.Join(base, "state"), "the Space's folder " + home + " contains the home folder", ""},
	} {
		warning, err := CheckSpaceFolder(row.path, row.state)
		if !strings.HasPrefix(warning, row.warning) || (warning == "") != (row.warning == "") || (err == nil) != (row.want == "") || err != nil && !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s with %s: got %q, %v; want %q, %q", row.path, row.state, warning, err, row.warning, row.want)
		}
	}
}

// TestLeastLevel checks which keys raise the level that auto selects: those that take a right from the Space.
func TestLeastLevel(t *testing.T) {
	for name, row := range map[string]struct {
		IsolationSettings
		least Isolation
		unmet []string
	}{
		"nothing":   {IsolationSettings{}, IsolationNone, nil},
		"egress":    {IsolationSettings{Egress: Egress{Mode: EgressNone}}, IsolationNamespaces, []string{"egress"}},
		"mounts":    {IsolationSettings{Mounts: []Mount{{}}}, IsolationNone, []string{"mounts"}},
		"at files":  {IsolationSettings{Isolation: IsolationFiles, Mounts: []Mount{{}}, Data: Data{Keep: true}}, IsolationNamespaces, []string{"data"}},
		"rw":        {IsolationSettings{SourceMode: SourceReadWrite}, IsolationNone, nil},
		"ro":        {IsolationSettings{SourceMode: SourceReadOnly}, IsolationNamespaces, []string{"source"}},
		"no calls":  {IsolationSettings{Calls: []string{}}, IsolationNamespaces, []string{"calls"}},
		"auto":      {IsolationSettings{Isolation: IsolationAuto, Calls: []string{}}, IsolationNamespaces, nil},
		"met":       {IsolationSettings{Isolation: IsolationUsers, Calls: []string{}, SourceMode: SourceOverlay}, IsolationNamespaces, nil},
		"all equal": {IsolationSettings{Isolation: IsolationNamespaces, Egress: Egress{Mode: EgressAll}}, IsolationNamespaces, nil},
	} {
		var unmet []string
		for _, d := range row.unmetDemands() {
			unmet = append(unmet, d.key)
		}
		if row.Least() != row.least || !reflect.DeepEqual(unmet, row.unmet) {
			t.Errorf("%s: least %s, unmet %v", name, row.Least(), unmet)
		}
	}
}

func TestSourceAt(t *testing.T) {
	for _, row := range []struct {
		mode    SourceMode
		level   Isolation
		isServe bool
		want    SourceMode
	}{
		{SourceDefault, IsolationNamespaces, true, SourceOverlay}, {SourceDefault, IsolationUsers, true, SourceOverlay}, {SourceDefault, IsolationFiles, true, SourceReadWrite},
		{SourceDefault, IsolationNamespaces, false, SourceReadWrite}, {SourceReadOnly, IsolationNamespaces, false, SourceReadOnly}, {SourceReadWrite, IsolationUsers, true, SourceReadWrite},
	} {
		if got := (IsolationSettings{SourceMode: row.mode}).SourceAt(row.level, row.isServe); got != row.want {
			t.Errorf("%+v: got %s", row, got)
		}
	}
}
