package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var subfolderDir = filepath.Join("testdata", "spaces", "subfolder")

// TestEnvironmentIsTheHubs: an app in a subfolder imports from the root, finds UTC and C.UTF-8 whatever the operator has
// set, and a program that it starts without PATH is the Space's own.
func TestEnvironmentIsTheHubs(t *testing.T) {
	t.Parallel()
	operator := []string{
		"TZ=Asia/Tokyo", "LC_ALL=C", "LANG=de_DE.UTF-8", "PIP_USER=1", "PIP_FIND_LINKS=/nowhere", "UV_PYTHON=3.8", "PYTHONPATH=/nowhere",
		"PIP_INDEX_URL=https://user:password@index.invalid/simple", "PIP_TRUSTED_HOST=index.invalid",
	}
	p := startProductWith(t, operator, t.TempDir(), subfolderDir)
	t.Cleanup(p.stop)
	p.awaitReady()
	c := p.client()
	var got map[string]any
	if err := json.Unmarshal([]byte(c.ok("/environment")), &got); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(subfolderDir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"answer": 42.0, "zone": "UTC", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONPATH": root, "PIP_TRUSTED_HOST": "index.invalid"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("environment\n got %v\nwant %v", got, want)
	}
	for _, row := range []struct {
		command string
		shell   bool
	}{{"pip --version", true}, {"pip --version", false}, {"python3 -c 'import sys; print(sys.prefix)'", true}, {"python -m pip --version; echo X=$X", true}} {
		var r struct{ Out, Prefix, Err string }
		if err := json.Unmarshal([]byte(c.ok("/run", row.command, row.shell)), &r); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(r.Out, r.Prefix) || strings.Contains(row.command, "$X") != strings.Contains(r.Out, "X=1") {
			t.Errorf("%s (shell: %t) printed %q (%s), want the Python in %s", row.command, row.shell, r.Out, r.Err, r.Prefix)
		}
	}
}

// TestOlderSpaces calls functions and generators of the oldest release of spaces that works, and of one whose decorator
// has no size (before 0.47). Package build refuses older ones.
func TestOlderSpaces(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.40.1", "0.46.0"} {
		t.Run(version, func(t *testing.T) {
			folder := t.TempDir()
			install := exec.Command(environment(t), "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "spaces=="+version, "psutil==7.1.3")
			if out, err := install.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			root, err := filepath.Abs(subfolderDir)
			if err != nil {
				t.Fatal(err)
			}
			p := runProduct(t, subfolderDir, "--variable", "PYTHONPATH="+folder+":"+root)
			c := p.client()
			if got := c.ok("/shout", "hello"); got != "HELLO" {
				t.Errorf("shout = %q", got)
			}
			if got := c.ok("/count", "3"); got != "2" {
				t.Errorf("count = %q", got)
			}
			if b := p.balance(); b.ChargedSeconds <= 0 || b.HeldSeconds != 0 {
				t.Errorf("after two calls: %+v, want seconds charged and none held", b)
			}
		})
	}
}
