package control

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/nodes"
)

// fakeNodes implements Nodes with one node, gpu2.
type fakeNodes struct {
	spec    nodes.JoinSpec // of the last token
	drain   *NodeDrain
	noFront bool
	open    int // leases
}

func (f *fakeNodes) node(name string) (Node, error) {
	if name != "gpu2" {
		return Node{}, &nodes.UnknownError{Name: name}
	}
	return Node{Name: name, State: string(nodes.Connected), Drained: f.drain, Labels: []string{}}, nil
}

func (f *fakeNodes) Pools() []Pool                         { return nil }
func (f *fakeNodes) Nodes(context.Context) ([]Node, error) { return nil, nil }
func (f *fakeNodes) ExplainNode(_ context.Context, name string) (NodeExplanation, error) {
	n, err := f.node(name)
	return NodeExplanation{Node: n}, err
}
func (f *fakeNodes) CreateJoinToken(_ context.Context, spec nodes.JoinSpec) (JoinToken, error) {
	if f.noFront {
		return JoinToken{}, &NoFrontError{}
	}
	f.spec = spec
	return JoinToken{Text: "shj_a_b_c", Names: string(spec.Names), Uses: spec.Uses}, spec.Names.Check()
}
func (f *fakeNodes) DrainNode(_ context.Context, name, reason, by string) (Node, error) {
	f.drain = &NodeDrain{By: by, Reason: reason}
	return f.node(name)
}
func (f *fakeNodes) ReturnNode(_ context.Context, name string) (Node, error) { return f.node(name) }
func (f *fakeNodes) RevokeNode(_ context.Context, name string) (Node, error) { return f.node(name) }
func (f *fakeNodes) ForgetNode(_ context.Context, name string) (Node, error) {
	if f.open > 0 {
		return Node{}, &nodes.BusyError{Name: name, Leases: f.open}
	}
	return f.node(name)
}

// TestNodeEndpoints checks defaults, statuses and texts of the requests for nodes, and what the audit log gets.
func TestNodeEndpoints(t *testing.T) {
	f := &fakeNodes{}
	var actions []Action
	e := echo.New()
	e.Use(Audit(func(context.Context) string { return "root" }, func(a Action) { actions = append(actions, a) }))
	New(Config{Host: &fakeHost{}, Nodes: f}).Register(e)
	for _, row := range []struct {
		method, path, body string
		status             int
		want, action       string
	}{
		{"GET", "/nodes", "", 200, "[]", ""},
		{"GET", "/nodes/gpu2/explain", "", 200, `"reasons":[],"notes":[]}`, ""},
		{"GET", "/nodes/gpu3/explain", "", 404, `no node is named \"gpu3\"; `, ""},
		{"POST", "/nodes/token", `{}`, 201, `"token":"shj_a_b_c"`, "node.token"},
		{"POST", "/nodes/token", `{"names":"GPU"}`, 400, `\"GPU\" cannot be the name or a label of a node`, "node.token"},
		{"POST", "/nodes/token", `{"seconds":0.5}`, 400, "a join token cannot be valid for 0.5 s; give a time from 1s to 365d", "node.token"},
		{"POST", "/nodes/token", `{"seconds":1e300}`, 400, "a join token cannot be valid for", "node.token"},
		{"POST", "/nodes/token", `{"name":"gpu2"}`, 400, "unknown field", "node.token"},
		{"POST", "/nodes/gpu2/drain", `{"reason":" new fan "}`, 200, `"by":"uid 1000","reason":"new fan"}`, "node.drain"},
		{"POST", "/nodes/gpu2/drain", `{}`, 200, `"reason":"by an operator's command"}`, "node.drain"},
		{"POST", "/nodes/gpu2/drain", `{"reason":"two\nlines"}`, 400, "printable text", "node.drain"},
		{"POST", "/nodes/gpu3/return", "", 404, "no node is named", "node.return"},
		{"POST", "/nodes/gpu2/revoke", "", 200, `"name":"gpu2"`, "node.revoke"},
		{"DELETE", "/nodes/gpu2", "", 200, `"name":"gpu2"`, "node.forget"},
		{"DELETE", "/nodes/shj_a_b_c", "", 404, "no node is named", "node.forget"},
	} {
		actions = nil
		r := httptest.NewRequest(row.method, row.path, strings.NewReader(row.body))
		r.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, r)
		if got := answer.Body.String(); answer.Code != row.status || !strings.Contains(got, row.want) {
			t.Errorf("%s %s %s: %d %s; want %d %s", row.method, row.path, row.body, answer.Code, got, row.status, row.want)
		}
		if row.action == "" {
			continue
		}
		record := actions[0].Record(time.Now())
		if record.Action != row.action || strings.Contains(record.Object+record.Detail, "shj_a") {
			t.Errorf("%s %s: the audit log has %+v, want %s", row.method, row.path, record, row.action)
		}
	}
	if f.spec.Uses != 1 || f.spec.Life != time.Hour || f.spec.By != "uid 1000" {
		t.Errorf("the default token is %+v", f.spec)
	}
	for _, row := range []struct {
		change func()
		path   string
		want   string
	}{
		{func() { f.noFront = true }, "POST /nodes/token", "this host accepts no nodes; add `cluster: {listen: ADDRESS}`"},
		{func() { f.open = 2 }, "DELETE /nodes/gpu2", "node gpu2 has 2 open leases; drain it"},
	} {
		row.change()
		method, path, _ := strings.Cut(row.path, " ")
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader("{}")))
		if answer.Code != 409 || !strings.Contains(answer.Body.String(), row.want) {
			t.Errorf("%s: %d %s; want 409 %s", row.path, answer.Code, answer.Body, row.want)
		}
	}
}
