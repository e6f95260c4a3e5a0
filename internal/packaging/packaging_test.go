// Package packaging contains what a release consists of beside the program: the build script, the packages, the service.
// Only its tests are Go.
package packaging

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/feature/featuretest"
)

// exposure is the highest result of `systemd-analyze security` (0 to 100) that the unit may have. Spaces need user namespaces,
// a whole /proc and cgroups, which the rest of the scale would take away.
const exposure = "52"

// TestUnit checks the units of all services with systemd itself.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		featuretest.Missing(t, "systemd-analyze is not installed (%v)", err)
	}
	folder := t.TempDir()
	var units []string
	for _, name := range []string{"spacehost.service", "spacehost-agent.service", "spacehost-node.service"} {
		text, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		// systemd checks that the program exists, which is not installed here.
		unit := filepath.Join(folder, name)
		if err := os.WriteFile(unit, regexp.MustCompile(`/usr/bin/spacehost`).ReplaceAll(text, []byte("/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v: %s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"security", "--offline=yes", "--threshold=" + exposure}, units...)...).CombinedOutput(); err != nil {
		t.Errorf("security: %v: %s", err, out)
	}
}

// unitSettings returns the lines KEY=VALUE of one section of a unit.
func unitSettings(t *testing.T, name, section string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut("\n"+string(text), "\n["+section+"]\n")
	if !found {
		t.Fatalf("%s has no section %s", name, section)
	}
	settings := map[string]string{}
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "[") {
			break
		}
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			settings[key] = value
		}
	}
	return settings
}

// TestAgentUnitsAreConfinedAsTheHost: Spaces run in the unit of the host, in that of its agent, or in that of a node, and are confined equally
// in all.
func TestAgentUnitsAreConfinedAsTheHost(t *testing.T) {
	own := []string{"Type", "EnvironmentFile", "ExecStart", "ExecReload", "WatchdogSec", "Restart", "RestartSec", "RestartPreventExitStatus", "TimeoutStartSec", "TimeoutStopSec"}
	state := regexp.MustCompile(` --state \S+$`)
	settings := func(unit string) (string, map[string]string) {
		all := unitSettings(t, unit, "Service")
		folder := state.FindString(all["ExecStart"])
		for _, key := range own {
			delete(all, key)
		}
		return folder, all
	}
	folder, host := settings("spacehost.service")
	for _, unit := range []string{"spacehost-agent.service", "spacehost-node.service"} {
		if other, agent := settings(unit); folder == "" || other != folder || len(host) < 20 || !maps.Equal(host, agent) {
			t.Errorf("the host's unit has%s and\n%v\n%s has%s and\n%v", folder, host, unit, other, agent)
		}
	}
}

// TestNodeSettings checks that the template of node.env sets the variables of the unit, and that the unit does not start without the file.
func TestNodeSettings(t *testing.T) {
	unit, service := unitSettings(t, "spacehost-node.service", "Unit"), unitSettings(t, "spacehost-node.service", "Service")
	if file := service["EnvironmentFile"]; file != "/etc/spacehost/node.env" || unit["ConditionPathExists"] != file {
		t.Errorf("the unit reads %q and requires %q", file, unit["ConditionPathExists"])
	}
	text, err := os.ReadFile("systemd/node.env")
	if err != nil {
		t.Fatal(err)
	}
	var set, used []string
	for _, words := range regexp.MustCompile(`(?m)^([A-Z_]+)=.`).FindAllSubmatch(text, -1) {
		set = append(set, string(words[1]))
	}
	for _, words := range regexp.MustCompile(`\$\{?([A-Z_]+)`).FindAllStringSubmatch(service["ExecStart"], -1) {
		used = append(used, words[1])
	}
	slices.Sort(set)
	slices.Sort(used)
	if len(used) != 2 || !slices.Equal(set, used) {
		t.Errorf("node.env sets %v, the unit uses %v", set, used)
	}
}

// TestHostLeavesTheAgentRunning: the agent starts before the host, only if it is enabled, and no stop of the host reaches it.
func TestHostLeavesTheAgentRunning(t *testing.T) {
	const unit = "spacehost-agent.service"
	host, agent := unitSettings(t, "spacehost.service", "Unit"), unitSettings(t, unit, "Unit")
	for key, value := range host {
		if orders := key == "After" || key == "JoinsNamespaceOf"; strings.Contains(value, unit) != orders {
			t.Errorf("the host's unit has %s=%s", key, value)
		}
	}
	for key, value := range agent {
		if strings.Contains(value, "spacehost.service") {
			t.Errorf("the agent's unit has %s=%s", key, value)
		}
	}
	if wanted := unitSettings(t, unit, "Install")["WantedBy"]; wanted != "spacehost.service" {
		t.Errorf("the agent is wanted by %q", wanted)
	}
}

// TestReloadOfTheUnit checks that ExecReload reaches the host that ExecStart starts.
func TestReloadOfTheUnit(t *testing.T) {
	text, err := os.ReadFile("systemd/spacehost.service")
	if err != nil {
		t.Fatal(err)
	}
	state := func(key, command string) string {
		found := regexp.MustCompile(`(?m)^` + key + `=/usr/bin/spacehost ` + command + `(?: .*)? --state (\S+)$`).FindSubmatch(text)
		if found == nil {
			t.Fatalf("%s has no `%s` with --state", key, command)
		}
		return string(found[1])
	}
	if start, reload := state("ExecStart", "serve"), state("ExecReload", "reload"); start != reload {
		t.Errorf("ExecReload uses the state folder %s, ExecStart %s", reload, start)
	}
}

// TestPackageContents checks that each file of the packages that is not built exists, and that the shell reads the scripts.
func TestPackageContents(t *testing.T) {
	text, err := os.ReadFile("nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Contents []struct{ Src string }
		Scripts  map[string]string
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	paths := []string{"internal/packaging/release", "internal/packaging/check", "internal/packaging/check-arm64", "internal/packaging/zigcc", "internal/packaging/notices"}
	for _, script := range config.Scripts {
		paths = append(paths, script)
	}
	if len(config.Scripts) != 3 || len(config.Contents) < 10 {
		t.Fatalf("%d scripts, %d files: the file is not understood", len(config.Scripts), len(config.Contents))
	}
	for _, path := range paths {
		if out, err := exec.Command("bash", "-n", filepath.Join("../..", path)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
	}
	for _, one := range config.Contents {
		if one.Src == "" || strings.HasPrefix(one.Src, "dist/") {
			continue
		}
		if _, err := os.Stat(filepath.Join("../..", one.Src)); err != nil {
			t.Error(err)
		}
	}
}

// TestLicences compares the licences that the script notices accepts with those that the wheel and the packages name. The script
// itself runs with TestWheel of internal/python.
func TestLicences(t *testing.T) {
	script, err := os.ReadFile("notices")
	if err != nil {
		t.Fatal(err)
	}
	accepted := regexp.MustCompile(`licences=(\S+)`).FindStringSubmatch(string(script))
	if accepted == nil {
		t.Fatal("the script names no licences")
	}
	want := strings.ReplaceAll(accepted[1], ",", " AND ")
	for file, line := range map[string]string{"nfpm.yaml": "\nlicense: " + want + "\n", "../python/pyproject.toml": "\nlicense = \"" + want + "\" "} {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), line) {
			t.Errorf("%s (%v) lacks the line %q", file, err, line)
		}
	}
}
