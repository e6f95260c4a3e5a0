package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/nodes"
	"spacehost/internal/notify"
)

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
	for _, kind := range notify.Kinds {
		if !slices.ContainsFunc(alertRules(t), func(rule alertRule) bool { return rule.Labels["notice"] == string(kind) }) {
			t.Errorf("no alert has the label notice: %s", kind)
		}
	}
	for _, rule := range alertRules(t) {
		if kind := notify.Kind(rule.Labels["notice"]); kind != "" && !slices.Contains(notify.Kinds, kind) {
			t.Errorf("alert %s has the label notice: %s, which is no kind of notice", rule.Alert, kind)
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

// TestDashboard checks the form of the dashboard: what Grafana would show at the wrong place, or not at all.
func TestDashboard(t *testing.T) {
	type source struct{ UID string }
	var dashboard struct {
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			Datasource  source
			GridPos     struct{ H, W, X, Y int }
			Targets     []struct {
				RefID      string
				Datasource source
			}
		}
	}
	if err := json.Unmarshal([]byte(readDocker(t, "monitoring/grafana/dashboards/spacehost.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	if list := dashboard.Templating.List; dashboard.SchemaVersion < 30 || len(list) != 1 || list[0].Type != "datasource" || list[0].Query != "prometheus" {
		t.Fatalf("schema %d, variables %v: want one variable that chooses a Prometheus", dashboard.SchemaVersion, list)
	}
	prometheus := source{"${" + dashboard.Templating.List[0].Name + "}"}
	taken, ids := map[[2]int]string{}, map[int]string{}
	for _, p := range dashboard.Panels {
		if other, twice := ids[p.ID]; twice || p.ID <= 0 || p.Title == "" {
			t.Errorf("panel %q has the id %d, which is also that of %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if g := p.GridPos; g.W < 1 || g.H < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			t.Errorf("panel %q is outside of the 24 columns: %+v", p.Title, g)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, full := taken[[2]int{x, y}]; full {
					t.Fatalf("panel %q covers %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if !slices.Contains([]string{"row", "stat", "timeseries", "state-timeline", "table", "bargauge", "gauge", "heatmap"}, p.Type) {
			t.Errorf("panel %q has the type %q, which Grafana 11 does not have", p.Title, p.Type)
		}
		if (p.Type == "row") != (len(p.Targets) == 0) || p.Type != "row" && p.Datasource != prometheus {
			t.Errorf("panel %q: %d queries of data source %v, want %v", p.Title, len(p.Targets), p.Datasource, prometheus)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource != prometheus {
				t.Errorf("panel %q: query %q is there twice, or has the data source %v", p.Title, target.RefID, target.Datasource)
			}
			refs[target.RefID] = true
		}
	}
	// The folders and the address are those of compose.yaml.
	compose := readYAML[composeFile](t, "compose.yaml")
	provider := readYAML[struct {
		Providers []struct{ Options struct{ Path string } }
	}](t, "monitoring/grafana/provisioning/dashboards/spacehost.yml")
	data := readYAML[struct{ Datasources []struct{ Type, URL string } }](t, "monitoring/grafana/provisioning/datasources/prometheus.yml")
	if path := provider.Providers[0].Options.Path; !slices.ContainsFunc(compose.Services["grafana"].Volumes, func(v string) bool { return strings.Contains(v, "/dashboards:"+path+":") }) {
		t.Errorf("compose.yaml mounts no dashboards at %s", path)
	}
	if one := data.Datasources[0]; one.Type != "prometheus" || one.URL != "http://prometheus:9090" {
		t.Errorf("data source %+v, want Prometheus of compose.yaml", one)
	}
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
	if u := p.compareUsage(); u.Total.Calls != 2 || u.Total.Kills != 1 {
		t.Errorf("usage: %+v", u)
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
			if strings.HasPrefix(name, "spacehost_space_egress_") && p.Spaces[0].Level != "namespaces" || name == "spacehost_webhook_notices_total" || isOfNodes(name) { // `run` has no webhooks and no nodes
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

// isOfNodes reports whether only a host with nodes has that metric (wantMetrics).
func isOfNodes(metric string) bool {
	return strings.HasPrefix(metric, "spacehost_node_") || metric == "spacehost_space_waits_for_node"
}

// wantMetrics checks the series of a front with its connected node, and that the dashboard shows each of them.
func (l *nodeLab) wantMetrics() {
	l.t.Helper()
	l.awaitNode("gpu2", nodes.Connected)
	shown := readDocker(l.t.(*testing.T), "monitoring/grafana/dashboards/spacehost.json")
	found := map[string]float64{}
	for series, value := range l.metrics() {
		if name, _, _ := strings.Cut(series, "{"); isOfNodes(name) {
			found[series] = value
			if !strings.Contains(shown, name) {
				l.t.Errorf("the dashboard does not show %s", name)
			}
		}
	}
	if found[`spacehost_node_round_trip_seconds{node="gpu2"}`] <= 0 {
		l.t.Errorf("no round trip among %v", found)
	}
	delete(found, `spacehost_node_round_trip_seconds{node="gpu2"}`)
	want := map[string]float64{`spacehost_node_state{node="gpu2",state="connected"}`: 1, `spacehost_node_in_service{node="gpu2"}`: 1, `spacehost_node_connections_total{node="gpu2"}`: 1}
	if !maps.Equal(found, want) {
		l.t.Errorf("metrics of nodes %v, want %v", found, want)
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
