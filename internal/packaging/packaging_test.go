// Package packaging contains what a release consists of beside the program: the build script, the packages, the service.
// Only its tests are Go.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/feature/featuretest"
)

// exposure is the highest result of `systemd-analyze security` (0 to 100) that the unit may have. Spaces need user namespaces,
// a whole /proc and cgroups, which the rest of the scale would take away.
const exposure = "52"

// TestUnit checks the unit of the service with systemd itself.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		featuretest.Missing(t, "systemd-analyze is not installed (%v)", err)
	}
	text, err := os.ReadFile("systemd/spacehost.service")
	if err != nil {
		t.Fatal(err)
	}
	// systemd checks that the program exists, which is not installed here.
	unit := filepath.Join(t.TempDir(), "spacehost.service")
	if err := os.WriteFile(unit, regexp.MustCompile(`/usr/bin/spacehost`).ReplaceAll(text, []byte("/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v: %s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold="+exposure, unit).CombinedOutput(); err != nil {
		t.Errorf("security: %v: %s", err, out)
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
