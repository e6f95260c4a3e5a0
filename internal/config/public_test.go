package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"spacehost/internal/web/certtest"
	"spacehost/quota"
)

// TestMistakesInURLs checks what --check finds in `url` and `console_url`.
func TestMistakesInURLs(t *testing.T) {
	const space = "spaces:\n- folder: demo\n  address: 127.0.0.1:1\n  url: "
	const twice = "\n- folder: demo\n  name: two\n  url: "
	for _, row := range []struct{ name, text, want string }{
		{"another scheme", space + "ftp://gpu.lab.example\n", "lab.yaml:4: spaces[0].url: \"ftp://gpu.lab.example\" is not a URL of a website; give one such as https://"},
		{"no scheme", space + "gpu.lab.example/a\n", "lab.yaml:4: spaces[0].url: \"gpu.lab.example/a\" is not a URL"},
		{"a query", space + "https://gpu.lab.example/?a=b\n", "lab.yaml:4: spaces[0].url: \"https://gpu.lab.example/?a=b\" has more than scheme, host, port and path"},
		{"a user", space + "https://ada@gpu.lab.example/\n", "lab.yaml:4: spaces[0].url: \"https://ada@gpu.lab.example/\" has more than"},
		{"an encoded path", space + "https://gpu.lab.example/a%20b\n", "lab.yaml:4: spaces[0].url: \"https://gpu.lab.example/a%20b\" has an invalid path; write it as /hello"},
		{"the host's own path", space + "https://gpu.lab.example/__spacehost\n", "lab.yaml:4: spaces[0].url: \"https://gpu.lab.example/__spacehost\" has an invalid path"},
		{"the Hub's path", space + "https://gpu.lab.example/api/a\n", "lab.yaml:4: spaces[0].url: \"https://gpu.lab.example/api/a\" begins with the path of the Hub's API"},
		{"an empty port", space + "https://gpu.lab.example:/\n", "lab.yaml:4: spaces[0].url: \"https://gpu.lab.example:/\" has an invalid host"},
		{"path twice", space + "https://gpu.lab.example/a\n  path: /a\n", "lab.yaml:5: spaces[0].path: `url` contains the sub-path already; remove `path`"},
		{"a duplicate", space + "https://gpu.lab.example/a" + twice + "https://GPU.lab.example:443/a/\n", "lab.yaml:7: spaces[1].url: https://gpu.lab.example/a is already the address of spaces[0]; choose"},
		{"the console's", "console_url: https://gpu.lab.example/a\n" + space + "https://gpu.lab.example/a\n", "lab.yaml:5: spaces[0].url: https://gpu.lab.example/a is already the address of console_url; choose"},
		{"one route for two ports", "spaces:\n- folder: demo\n  url: https://gpu.lab.example:1/a" + twice + "https://gpu.lab.example:2/a\n", "lab.yaml:6: spaces[1].url: requests for gpu.lab.example/a at the shared `address` already go to spaces[0]; choose"},
		{"a host of another Space", "spaces:\n- folder: demo\n  host: gpu.lab.example" + twice + "https://gpu.lab.example\n", "lab.yaml:6: spaces[1].url: requests for gpu.lab.example at the shared"},
		{"a host after its url", "spaces:\n- folder: demo\n  url: https://gpu.lab.example\n- folder: demo\n  name: two\n  host: gpu.lab.example\n", "lab.yaml:6: spaces[1].host: requests for gpu.lab.example at the shared"},
		{"the console's scheme", "console_url: console.lab.example\n" + demo, "lab.yaml:1: console_url: \"console.lab.example\" is not a URL"},
	} {
		if _, _, err := configIn(t, row.text); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: got  %v\nwant %s", row.name, err, row.want)
		}
	}
}

// TestSpacesShareAName loads Spaces at paths of one host name, with the console beside them.
func TestSpacesShareAName(t *testing.T) {
	s, warnings, err := configIn(t, "console_url: https://gpu.lab.example/console/\npeople: [{name: ada}]\nspaces:\n- {folder: demo, name: a, url: 'https://gpu.lab.example/a/'}\n"+
		"- {folder: demo, name: b, url: 'https://GPU.lab.example:443/b', host: b.lab.example}\n- {folder: demo, name: c, host: c.lab.example, visibility: private}\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.Spaces[0].URL.String() != "https://gpu.lab.example/a" || s.Spaces[0].SubPath != "/a" || s.ConsoleURL.String() != "https://gpu.lab.example/console" {
		t.Errorf("got %+v, console %s", s.Spaces[0], s.ConsoleURL)
	}
	for i, want := range [][]string{{"gpu.lab.example/a"}, {"b.lab.example", "gpu.lab.example/b"}, {"c.lab.example"}} {
		if got := s.Spaces[i].Routes(); !reflect.DeepEqual(got, want) {
			t.Errorf("Space %d: routes %q, want %q", i, got, want)
		}
	}
	if len(warnings) != 3 || !strings.Contains(warnings[0], "share the origin https://gpu.lab.example") || !strings.Contains(warnings[2], "this private Space has no `url`") {
		t.Errorf("warnings %q, want the shared origin of two Spaces, and a private Space without a url", warnings)
	}
}

// TestSpacesShareTheConsolesName loads Spaces that browsers may reach at the origin of the console by a host or a path.
func TestSpacesShareTheConsolesName(t *testing.T) {
	for _, row := range []struct{ name, top, space, want string }{
		{"a host behind a proxy", "console_url: https://gpu.lab.example/console", "host: GPU.lab.example", "lab.yaml:4: spaces[0].host: this Space and the console share the host name gpu.lab.example, so"},
		{"a host at the port of the address", "console_url: http://gpu.lab.example:7000/console\naddress: 127.0.0.1:7000", "host: gpu.lab.example", "lab.yaml:5: spaces[0].host: this Space and the console share"},
		{"a path", "console_url: https://gpu.lab.example/console", "address: 127.0.0.1:7861\n  path: /hello", "lab.yaml:5: spaces[0].path: this Space has a `path` and no `url`: if a proxy serves it at the console's origin https://gpu.lab.example, its"},
		{"a host beside a url", "console_url: https://gpu.lab.example", "host: gpu.lab.example\n  url: https://demo.lab.example", "lab.yaml:4: spaces[0].host: this Space and the console share"},
		{"a path beside a console at a name of its own", "console_url: https://console.lab.example", "address: 127.0.0.1:7861\n  path: /hello", ""},
		{"another port", "console_url: http://gpu.lab.example:7002\naddress: 127.0.0.1:7000", "host: gpu.lab.example", ""},
		{"another host", "console_url: https://console.lab.example", "host: gpu.lab.example", ""},
		{"no console_url", "people: []", "address: 127.0.0.1:7861\n  path: /hello", ""},
	} {
		_, warnings, err := configIn(t, row.top+"\nspaces:\n- folder: demo\n  "+row.space+"\n")
		if err != nil || len(warnings) > 1 || row.want == "" && len(warnings) > 0 || !strings.HasPrefix(strings.Join(warnings, ""), row.want) {
			t.Errorf("%s: %v, warnings %q, want %q", row.name, err, warnings, row.want)
		}
	}
}

// TestMistakesInTLS checks that a pair which a start could not use is found by --check.
func TestMistakesInTLS(t *testing.T) {
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one"), filepath.Join(dir, "other")
	certtest.Write(t, 1, one+".pem", one+".key")
	certtest.Write(t, 1, other+".pem", other+".key")
	for _, row := range []struct{ tls, want string }{
		{"{cert: " + one + ".pem}", "lab.yaml:1: tls: needs both `cert` and `key`; add"},
		{"{cert: " + one + ".pem, key: missing.key}", "lab.yaml:1: tls: cannot read "},
		{"{cert: " + one + ".pem, key: " + other + ".key}", "lab.yaml:1: tls: " + one + ".pem and " + other + ".key are not a certificate and its key: tls: private key does not match public key; give"},
		{"{cert: " + one + ".key, key: " + one + ".key}", "lab.yaml:1: tls: " + one + ".key and " + one + ".key are not a certificate"},
		{"[a]", "lab.yaml:1: tls: must be a mapping with `cert` and `key`"},
	} {
		if _, _, err := configIn(t, "tls: "+row.tls+"\n"+demo); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: got  %v\nwant %s", row.tls, err, row.want)
		}
	}
	if err := os.Chmod(one+".key", 0o644); err != nil {
		t.Fatal(err)
	}
	s, warnings, err := configIn(t, "tls: {cert: "+one+".pem, key: "+one+".key}\n"+demo)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "chmod o-r "+one+".key") || s.TLS != (TLS{one + ".pem", one + ".key"}) {
		t.Errorf("got %+v, warnings %q, %v", s.TLS, warnings, err)
	}
}

// TestDifferenceOfAddresses checks which changes of addresses a reload applies, and how.
func TestDifferenceOfAddresses(t *testing.T) {
	text := "spaces:\n- {folder: demo, address: '127.0.0.1:1', url: 'https://a.lab.example/a'}\n"
	before, _, err := configIn(t, text)
	if err != nil {
		t.Fatal(err)
	}
	after, _, err := configIn(t, "console_url: https://b.lab.example/console\n"+strings.ReplaceAll(text, "a.lab", "c.lab"))
	if err != nil {
		t.Fatal(err)
	}
	after.TLS = TLS{"lab.pem", "lab.key"}
	var got []string
	after.Spaces[0].Dir = before.Spaces[0].Dir // each file is in a folder of its own
	for _, c := range Difference(before, after, quota.Tiers{}, quota.Tiers{}) {
		got = append(got, c.String())
	}
	want := []string{
		"~ host: console_url none -> https://b.lab.example/console (needs a restart of the host)", "~ host: tls off -> on (needs a restart of the host)",
		"~ host: tls.cert none -> lab.pem", "~ host: tls.key none -> lab.key", "~ space demo: url https://a.lab.example/a -> https://c.lab.example/a (the Space restarts)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
