package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/config"
)

const dockerDir = "../../docker"

func readDocker(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dockerDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readYAML[T any](t *testing.T, name string) (into T) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readDocker(t, name)), &into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return into
}

// TestDockerfile checks what docker/check, which is slow, relies on. The host installs the same release of uv by itself.
func TestDockerfile(t *testing.T) {
	text := readDocker(t, "Dockerfile")
	for _, want := range []string{
		"ARG BUILDER_IMAGE=golang:1.26-bookworm\n", "ARG BASE_IMAGE=debian:bookworm-slim\n", "\nUSER 1000:1000\n", "\nVOLUME [\"/var/lib/spacehost\", \"/models\"]\n",
		"-perm /6000", "\nHEALTHCHECK ", `CMD ["spacehost", "space", "list"]`, `CMD ["serve", "--config", "/etc/spacehost/lab.yaml"]`, "XDG_STATE_HOME=/var/lib ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("Dockerfile: %q is missing", want)
		}
	}
	tools, err := os.ReadFile("../../internal/build/tools.go")
	if err != nil {
		t.Fatal(err)
	}
	uv := regexp.MustCompile(`uvVersion = "([0-9.]+)"`).FindSubmatch(tools)
	if uv == nil || !strings.Contains(text, "ARG UV_VERSION="+string(uv[1])+"\n") {
		t.Errorf("the Dockerfile's uv is not that of internal/build/tools.go, %s", uv)
	}
	module, err := os.ReadFile("../../go.mod")
	if err != nil || !bytes.Contains(module, []byte("\ngo 1.26")) {
		t.Errorf("go.mod requires another Go than the Dockerfile's (%v)", err)
	}
	var copied []string
	for _, words := range regexp.MustCompile(`(?m)^COPY ([^-].*)$`).FindAllStringSubmatch(text, -1) {
		fields := strings.Fields(words[1])
		copied = append(copied, fields[:len(fields)-1]...)
	}
	ignore, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range copied {
		if _, err := os.Stat(filepath.Join("../..", name)); err != nil || name != "." && !strings.Contains(string(ignore), "\n!"+name+"\n") {
			t.Errorf("COPY %s: not in the build context (%v)", name, err)
		}
	}
}

// composeFile holds the parts of a compose file that the tests check.
type composeFile struct {
	Services map[string]struct {
		Image    string
		Build    struct{ Context, Dockerfile string }
		Command  []string
		Volumes  []string
		Ports    []string
		Networks any
	}
	Volumes  map[string]any
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

// check checks a compose file against the schema of the Compose Specification, and the files that it names, its pinned images and
// its volumes. The program of compose-go, which Docker Compose is made of, checks the schema.
func (c composeFile) check(t *testing.T, name string) {
	t.Helper()
	schema := exec.Command("go", "tool", "-modfile=../../internal/packaging/tools.mod", "github.com/compose-spec/compose-go/v2/cmd", "--no-interpolation", filepath.Join(dockerDir, name))
	if out, err := schema.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
	for service, s := range c.Services {
		if s.Build.Context != "" {
			if _, err := os.Stat(filepath.Join(dockerDir, s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %s: %v", name, service, err)
			}
		} else if !regexp.MustCompile(`:v?[0-9]+\.[0-9]+\.[0-9]+$`).MatchString(s.Image) {
			t.Errorf("%s: %s: the version of image %s is not pinned", name, service, s.Image)
		}
		for _, volume := range s.Volumes {
			from, _, _ := strings.Cut(volume, ":")
			_, named := c.Volumes[from]
			if _, err := os.Stat(filepath.Join(dockerDir, from)); strings.HasPrefix(from, ".") && err != nil || !strings.HasPrefix(from, ".") && !strings.HasPrefix(from, "$") && !named {
				t.Errorf("%s: %s: volume %s does not exist", name, service, volume)
			}
		}
		for _, port := range s.Ports {
			if service != "caddy" && !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: %s: port %s is open to other machines", name, service, port)
			}
		}
	}
}

// TestCompose checks that compose.yaml, its configuration and its reverse proxy name the same addresses and volumes.
func TestCompose(t *testing.T) {
	c := readYAML[composeFile](t, "compose.yaml")
	c.check(t, "compose.yaml")
	if got := slices.Sorted(maps.Keys(c.Services)); !slices.Equal(got, []string{"caddy", "grafana", "prometheus", "spacehost"}) {
		t.Errorf("services: %v", got)
	}
	address := func(service string) netip.Addr {
		lab, _ := c.Services[service].Networks.(map[string]any)["lab"].(map[string]any)
		addr, err := netip.ParseAddr(fmt.Sprint(lab["ipv4_address"]))
		if err != nil || !netip.MustParsePrefix(c.Networks["lab"].IPAM.Config[0].Subnet).Contains(addr) {
			t.Errorf("address of %s: %v (%v)", service, addr, err)
		}
		return addr
	}
	// The folders of the image are replaced by those of the repository.
	dir := t.TempDir()
	sampleFolder, err := filepath.Abs(sampleDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"compose.lab.yaml", "lab.yaml"} {
		text := strings.ReplaceAll(readDocker(t, name), "/spaces/hello-zerogpu", sampleFolder)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, warnings, err := config.Load(filepath.Join(dir, name), "")
		if err != nil || len(warnings) > 0 {
			t.Fatal(name, err, warnings)
		}
		if name == "lab.yaml" {
			continue
		}
		caddy, prometheus := address("caddy"), address("prometheus")
		if !slices.Equal(s.Proxies, []netip.Prefix{netip.PrefixFrom(caddy, 32)}) || !slices.Equal(s.MetricsFrom, []netip.Prefix{netip.PrefixFrom(prometheus, 32)}) {
			t.Errorf("trusted_proxies %v, metrics_from %v; want %s and %s", s.Proxies, s.MetricsFrom, caddy, prometheus)
		}
		proxy := readDocker(t, "proxies/Caddyfile")
		for _, space := range s.Spaces {
			if host := space.URL.HostName(); host == "" || !strings.Contains(proxy, host) {
				t.Errorf("the Caddyfile does not contain Space %s", space.Name)
			}
		}
	}
	if !strings.Contains(readDocker(t, "Dockerfile"), "install -d -o spacehost -g spacehost -m 0700 /var/lib/spacehost") {
		t.Error("the volume of the state would belong to root")
	}
}

// TestProxiesMatchTheGuide compares the configuration in the operator guide with the files of docker/proxies.
func TestProxiesMatchTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operator-guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "\n## Reverse proxies\n")
	_, text, _ = strings.Cut(text, "```yaml\n")
	text, _, _ = strings.Cut(text, "```\n")
	dir := t.TempDir()
	for _, name := range []string{"hello", "drafts", "survey"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "lab.yaml")
	if err := os.WriteFile(file, []byte(text+"people: [{name: ada}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, warnings, err := config.Load(file, "")
	if err != nil || len(warnings) > 0 || len(s.Spaces) != 3 {
		t.Fatal(err, warnings, s.Spaces)
	}
	ports := []string{port(s.Address.Value), port(s.Console.Value)}
	names := append([]string{s.ConsoleURL.Host}, s.Hosts...)
	for _, space := range s.Spaces {
		names = append(names, space.URL.HostName())
		if space.Addr.Value != "" {
			ports = append(ports, port(space.Addr.Value))
		}
	}
	if !strings.Contains(string(guide), "\n```nginx\n"+readDocker(t, "proxies/nginx.conf")+"```\n") {
		t.Error("the block of nginx in the guide is not docker/proxies/nginx.conf")
	}
	for _, proxy := range reverseProxies {
		text := readDocker(t, "proxies/"+proxy.file)
		for _, want := range append(names, ports...) {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not contain %s of the guide", proxy.file, want)
			}
		}
	}
	_ = readYAML[map[string]any](t, "proxies/traefik.yaml")
}

// TestComposeForAuthors checks the command line of compose.dev.yaml and its tiers.
func TestComposeForAuthors(t *testing.T) {
	c := readYAML[composeFile](t, "compose.dev.yaml")
	c.check(t, "compose.dev.yaml")
	command := c.Services["space"].Command
	p := &product{t: t}
	_, help, _ := p.cli("run", "--help")
	for _, word := range command {
		if strings.HasPrefix(word, "--") && !strings.Contains(help, word+" ") {
			t.Errorf("`run` has no flag %s", word)
		}
	}
	tiers, err := config.ReadTiers(filepath.Join(dockerDir, "dev-tiers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	visitor, err1 := tiers.Get("unauthenticated")
	free, err2 := tiers.Get("free")
	if err1 != nil || err2 != nil || visitor.Quota != free.Quota || visitor.Runs != 0 {
		t.Errorf("the author's browser has tier %+v (%v), want the seconds of %+v (%v)", visitor, err1, free, err2)
	}
}
