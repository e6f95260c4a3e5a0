package host

import (
	"slices"
	"strings"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/space"
)

// TestSpaceEnvironment: settings of the operator's shell do not reach a Space; the address of the package index does,
// without a password.
func TestSpaceEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "PIP_USER": "1", "PIP_FIND_LINKS": "/x", "UV_PYTHON": "3.8", "PYTHONPATH": "/x",
		"HF_TOKEN": "secret", "PIP_INDEX_URL": "https://index.invalid/simple", "PIP_EXTRA_INDEX_URL": "https://a.invalid https://user:pw@b.invalid/simple",
		"PIP_CERT": "/ca.pem", "PIP_PROXY": "user:pw@proxy.invalid:3128", "UV_DEFAULT_INDEX": "https://token@index.invalid/simple",
	} {
		t.Setenv(name, value)
	}
	s := &space.Space{Name: "demo", Dir: "/spaces/demo"}
	environ := func(variables map[string]string) []string {
		return spaceEnviron(machineVars(s, &build.Environment{Python: "/env/bin/python"}, "/home", nil), hostVars(s, "localhost", false, variables))
	}
	got := environ(map[string]string{"OWN": "1"})
	for _, want := range []string{"TZ=UTC", "LANG=C.UTF-8", "PYTHONPATH=/spaces/demo", "PIP_INDEX_URL=https://index.invalid/simple", "PIP_CERT=/ca.pem", "OWN=1"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	for _, name := range []string{"LC_ALL", "PIP_USER", "PIP_FIND_LINKS", "UV_PYTHON", "HF_TOKEN", "PIP_EXTRA_INDEX_URL", "PIP_PROXY", "UV_DEFAULT_INDEX"} {
		if slices.ContainsFunc(got, func(pair string) bool { return len(pair) > len(name) && pair[:len(name)+1] == name+"=" }) {
			t.Errorf("%s reached the Space", name)
		}
	}
	got = environ(map[string]string{"TZ": "Europe/Paris", "PYTHONPATH": "/own"})
	if !slices.Contains(got, "TZ=Europe/Paris") || !slices.Contains(got, "PYTHONPATH=/own") {
		t.Errorf("the Space's own Variables do not win: %q", got)
	}
}

// TestReservedVariablesAreSet: a name that no Space may set is one that the host sets. The runner sets the device API's address.
func TestReservedVariablesAreSet(t *testing.T) {
	visible := gpu.KnownHardware[gpu.NewestHardware]
	s := &space.Space{Name: "demo", Dir: "/spaces/demo"}
	got := spaceEnviron(machineVars(s, &build.Environment{Python: "/env/bin/python"}, "/home", &visible), hostVars(s, "localhost", true, nil))
	for _, name := range config.ReservedVariables {
		if name != "SPACES_ZERO_DEVICE_API_URL" && !slices.ContainsFunc(got, func(pair string) bool { return strings.HasPrefix(pair, name+"=") }) {
			t.Errorf("%s is reserved and not set", name)
		}
	}
}

// TestEachVariableHasOneSource: a variable of the host has the same value on every machine, so it names no path of this one, and the
// machine sets another.
func TestEachVariableHasOneSource(t *testing.T) {
	visible := gpu.KnownHardware[gpu.NewestHardware]
	s := &space.Space{Name: "demo", Dir: "/spaces/demo", HFOAuth: true}
	ofMachine := machineVars(s, &build.Environment{Python: "/env/bin/python", Dir: "/env"}, "/home", &visible)
	for name, value := range hostVars(s, "localhost", true, nil) {
		if _, both := ofMachine[name]; both {
			t.Errorf("%s is set by the host and by the machine", name)
		}
		if strings.HasPrefix(value, "/") {
			t.Errorf("%s=%s is a path of this machine", name, value)
		}
	}
}
