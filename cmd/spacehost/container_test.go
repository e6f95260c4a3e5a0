package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
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
			if host := space.Host; host != "" && !strings.Contains(proxy, host) || space.SubPath != "" && !strings.Contains(proxy, space.SubPath+"/*") {
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
	names := append([]string{strings.TrimPrefix(s.ConsoleURL, "https://")}, s.Hosts...)
	for _, space := range s.Spaces {
		names = append(names, space.Host, space.SubPath)
		if space.Addr.Value != "" {
			ports = append(ports, port(space.Addr.Value))
		}
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

// TestAlertRules runs promtool on the rules, their tests and the configuration of Prometheus.
func TestAlertRules(t *testing.T) {
	promtool := requireProgram(t, "promtool", "promtool")
	for _, args := range [][]string{
		{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}, {"check", "config", "--syntax-only", "prometheus.yml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join(dockerDir, "monitoring")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	for _, rule := range alertRules(t) {
		if rule.Annotations["summary"] == "" || rule.Annotations["action"] == "" || rule.Labels["severity"] == "" {
			t.Errorf("alert %s: summary, action or severity is missing", rule.Alert)
		}
		if !strings.Contains(readDocker(t, "monitoring/alerts_test.yml"), rule.Alert) {
			t.Errorf("alert %s has no test", rule.Alert)
		}
	}
}

type alertRule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	return readYAML[struct{ Groups []struct{ Rules []alertRule } }](t, "monitoring/alerts.yml").Groups[0].Rules
}

// dashboardQueries returns the queries of the dashboard by the title of their panel.
func dashboardQueries(t *testing.T) map[string][]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readDocker(t, "monitoring/grafana/dashboards/spacehost.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := map[string][]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries[panel.Title] = append(queries[panel.Title], target.Expr)
		}
	}
	return queries
}

// seriesRule matches a series in a query, with its matchers. labelRule matches one label of a matcher or a series.
var (
	seriesRule = regexp.MustCompile(`\b((?:spacehost|process)_[a-z_]+)(\{[^}]*\})?`)
	labelRule  = regexp.MustCompile(`([a-z_]+)=~?"([^"]*)"`)
	byRule     = regexp.MustCompile(`\b(?:by|ignoring) \(([a-z_, ]+)\)`)
)

// TestDashboardMetrics compares each metric, label and matcher of the dashboard and the alert rules with the metrics of a host
// that has seen every kind of event: calls, an ended one, an error of a GPU, and use without a lease.
func TestDashboardMetrics(t *testing.T) {
	t.Parallel()
	p := runOn(t, "v6", leasesDir)
	c := p.client()
	c.ok("/five", 0)
	if r := c.submit("/overstay", 30).wait(); !r.Failed {
		t.Fatal("a call beyond its deadline succeeded")
	}
	p.fault("xid=79", "xid=79")
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	fault := fmt.Sprintf("process=%d", other.Process.Pid)
	p.fault(fault, "xid=79, "+fault)
	c.submit("/five", 0)                // it waits: no GPU is lent
	var live map[string]map[string]bool // the labels of each metric, also as label="value"
	eventually(t, "every event is counted", patience, func() bool {
		live = map[string]map[string]bool{}
		for series := range p.metrics() {
			name, labels, _ := strings.Cut(series, "{")
			if live[name] == nil {
				live[name] = map[string]bool{}
			}
			for _, label := range labelRule.FindAllStringSubmatch(labels, -1) {
				live[name][label[1]], live[name][label[0]] = true, true
			}
		}
		return live["spacehost_device_xids_total"] != nil && live["spacehost_device_uninvited_processes"] != nil && live["spacehost_leases_open"] != nil
	})
	check := func(where, query string) {
		labels := map[string]bool{"job": true, "instance": true}
		for _, series := range seriesRule.FindAllStringSubmatch(query, -1) {
			name := series[1]
			if strings.HasPrefix(name, "spacehost_space_egress_") && p.Spaces[0].Level != "namespaces" {
				continue
			}
			if live[name] == nil {
				t.Errorf("%s: the host has no metric %s", where, name)
			}
			maps.Copy(labels, live[name])
			for _, matcher := range labelRule.FindAllStringSubmatch(series[2], -1) {
				exact := !strings.Contains(matcher[0], "=~") && matcher[1] != "job"
				if matcher[1] != "job" && !live[name][matcher[1]] || exact && !live[name][matcher[0]] {
					t.Errorf("%s: %s has no series with %s", where, name, matcher[0])
				}
			}
		}
		for _, by := range byRule.FindAllStringSubmatch(query, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				if !labels[label] {
					t.Errorf("%s: no metric of %q has the label %s", where, query, label)
				}
			}
		}
	}
	used := ""
	for panel, queries := range dashboardQueries(t) {
		for _, query := range queries {
			check("panel "+panel, query)
			used += query
		}
	}
	for _, rule := range alertRules(t) {
		check("alert "+rule.Alert, rule.Expr)
	}
	for name := range live {
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "spacehost_") && !strings.Contains(used, name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// TestPrometheus runs Prometheus with the configuration of compose.yaml: it reads a host, and answers each query of the
// dashboard.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	program := requireProgram(t, "Prometheus", "prometheus")
	p := sample(t)
	dir := t.TempDir()
	settings := strings.NewReplacer("spacehost:7870", strings.TrimPrefix(p.Console, "http://"), "/etc/prometheus", dir, ": 15s", ": 1s", ": 10s", ": 1s").Replace(readDocker(t, "monitoring/prometheus.yml"))
	for name, text := range map[string]string{"prometheus.yml": settings, "alerts.yml": readDocker(t, "monitoring/alerts.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr := freeAddress(t)
	cmd := exec.Command(program, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+addr)
	startUntilEnd(t, cmd)
	query := func(expr string) (status, value string) {
		answer, err := http.Get("http://" + addr + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return err.Error(), ""
		}
		defer answer.Body.Close()
		var result struct {
			Status, Error string
			Data          struct{ Result []struct{ Value [2]any } }
		}
		if err := json.NewDecoder(answer.Body).Decode(&result); err != nil {
			return err.Error(), ""
		}
		if len(result.Data.Result) > 0 {
			value = fmt.Sprint(result.Data.Result[0].Value[1])
		}
		return result.Status + result.Error, value
	}
	eventually(t, "Prometheus reads the host", patience, func() bool { _, value := query(`up{job="spacehost"}`); return value == "1" })
	eventually(t, "the Space runs", patience, func() bool { _, value := query(`spacehost_space_stage{stage="RUNNING"}`); return value == "1" })
	for panel, queries := range dashboardQueries(t) {
		for _, expr := range queries {
			if status, _ := query(strings.ReplaceAll(expr, "$__rate_interval", "1m")); status != "success" {
				t.Errorf("panel %s: %s: %s", panel, expr, status)
			}
		}
	}
}

// TestDashboardQueries lets promtool parse each query, as recording rules.
func TestDashboardQueries(t *testing.T) {
	promtool := requireProgram(t, "promtool", "promtool")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, queries := range dashboardQueries(t) {
		for _, query := range queries {
			rules = append(rules, rule{fmt.Sprintf("query:%d", len(rules)), strings.ReplaceAll(query, "$__rate_interval", "1m")})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil || len(rules) < 20 {
		t.Errorf("promtool: %v, %d queries\n%s", err, len(rules), out)
	}
}
