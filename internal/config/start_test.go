package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartText: the text of a Space changes exactly for keys whose change needs a new start.
func TestStartText(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"demo", "other"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	text := func(keys string) string {
		t.Helper()
		if err := os.WriteFile("lab.yaml", []byte("people: [{name: ada}]\nspaces:\n- {name: x, "+keys+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := load("lab.yaml", "", true)
		if err != nil {
			t.Fatalf("%s: %v", keys, err)
		}
		return s.Spaces[0].StartText()
	}
	const plain = "folder: demo, address: ':1'"
	before := text(plain)
	tried := map[string]bool{}
	for keys, changes := range map[string]bool{
		plain:                           false,
		plain + ", path: /x":            false,
		plain + ", visibility: private": false,
		plain + ", visibility: private, members: [ada]": false,
		plain + ", concurrency: 2":                      false,
		plain + ", liveness: {after: 1m}":               false,
		plain + ", bar: false":                          false,
		"folder: other, address: ':1'":                  true,
		"folder: demo, address: ':2'":                   true,
		plain + ", host: x.example":                     true,
		plain + ", url: 'https://x.example'":            true,
		plain + ", python: /usr/bin/python3":            true,
		plain + ", isolation: none":                     true,
		plain + ", gpu_nodes: lease":                    true,
		plain + ", egress: none":                        true,
		plain + ", reach: ['10.0.0.1:80']":              true,
		plain + ", limits: {memory: 8GiB}":              true,
		plain + ", source: ro":                          true,
		plain + ", data: true":                          true,
		plain + ", cache: private":                      true,
		plain + ", mounts: [/usr]":                      true,
		plain + ", calls: []":                           true,
		plain + ", variables: {A: one}":                 true,
		plain + ", secrets: {A: one}":                   true,
	} {
		after := text(keys)
		if (after != before) != changes {
			t.Errorf("%s: the text changes: %v, want %v\n%s", keys, after != before, changes, after)
		}
		for _, f := range spaceFields {
			if strings.Contains(keys, f.key+":") {
				tried[f.key] = true
			}
		}
	}
	for _, f := range spaceFields {
		if !tried[f.key] {
			t.Errorf("the key %s is not tried", f.key)
		}
	}
	for _, pair := range [][2]string{
		{"variables: {A: one}", "variables: {A: two}"}, {"secrets: {A: one}", "secrets: {A: two}"}, {"variables: {A: one}", "secrets: {A: one}"},
		{"variables: {A: 'x\"\nB=\"y'}", "variables: {A: x, B: y}"},
	} {
		if text(plain+", "+pair[0]) == text(plain+", "+pair[1]) {
			t.Errorf("%s and %s have the same text", pair[0], pair[1])
		}
	}
	if one, two := text(plain+", variables: {A: one, B: two}, mounts: [/usr, /opt]"), text(plain+", mounts: [/opt, /usr], variables: {B: two, A: one}"); one != two {
		t.Errorf("the order of entries changes the text:\n%s\n%s", one, two)
	}
}
