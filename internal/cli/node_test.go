package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/agent"
	"spacehost/internal/control"
	"spacehost/internal/nodeagent"
	"spacehost/internal/nodes"
	"spacehost/internal/usage"
)

// stubNodes implements control.Nodes with the nodes of all.
type stubNodes struct{ all []control.Node }

func (s *stubNodes) find(name string) (*control.Node, error) {
	for i := range s.all {
		if s.all[i].Name == name {
			return &s.all[i], nil
		}
	}
	return &control.Node{}, &nodes.UnknownError{Name: name}
}

func (s *stubNodes) Pools() []control.Pool                         { return nil }
func (s *stubNodes) Nodes(context.Context) ([]control.Node, error) { return s.all, nil }

func (s *stubNodes) ExplainNode(_ context.Context, name string) (control.NodeExplanation, error) {
	n, err := s.find(name)
	return control.NodeExplanation{Node: *n, Reasons: []string{"It is drained."}, Notes: []string{"Its clock differs."}}, err
}

func (s *stubNodes) CreateJoinToken(_ context.Context, spec nodes.JoinSpec) (control.JoinToken, error) {
	return control.JoinToken{Text: "shj_a_b_c", ID: "a", Names: string(spec.Names), Uses: spec.Uses, ExpiresAt: time.Now().Add(spec.Life), Front: "front:7443"}, nil
}

func (s *stubNodes) DrainNode(_ context.Context, name, reason, by string) (control.Node, error) {
	n, err := s.find(name)
	n.Drained = &control.NodeDrain{By: by, Reason: reason}
	return *n, err
}

func (s *stubNodes) ReturnNode(_ context.Context, name string) (control.Node, error) {
	n, err := s.find(name)
	n.Drained = nil
	return *n, err
}

func (s *stubNodes) RevokeNode(_ context.Context, name string) (control.Node, error) {
	n, err := s.find(name)
	n.State = string(nodes.Revoked)
	return *n, err
}

func (s *stubNodes) ForgetNode(_ context.Context, name string) (control.Node, error) {
	n, err := s.find(name)
	forgotten := *n
	s.all = nil
	return forgotten, err
}

// TestNodesByCommandLine goes through the commands for nodes.
func TestNodesByCommandLine(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`^No nodes have joined\. Next: spacehost node token\n$`, "node")
	h.wantOutput(`^\[\]\n$`, "node", "--json")
	made := h.wantOutput(`^shj_a_b_c\n$`, "node", "token", "--name", "gpu2", "--for", "30d")
	if !strings.Contains(made.err, "valid once until ") || !strings.HasSuffix(made.err, "\n  spacehost agent --join front:7443 --token-file FILE --name gpu2\n") {
		t.Errorf("stderr with the token: %q", made.err)
	}
	made = h.wantOutput(`^shj_a_b_c\n$`, "node", "token", "--name", "slurm-*", "--uses", "0")
	if !strings.Contains(made.err, "valid any number of times until ") || !strings.HasSuffix(made.err, " --token-file FILE\n") {
		t.Errorf("stderr with the token of a pattern: %q", made.err)
	}
	h.nodes.all = []control.Node{{Name: "gpu2", State: string(nodes.Connected), GPUs: 2, RTTSeconds: 0.00123, Version: "1.4.0", SeenAt: new(time.Now())}, {Name: "gpu3", State: string(nodes.Joined)}}
	h.wantOutput(`^NODE +STATE +GPUS +LEASES +RTT +VERSION +SEEN\ngpu2 +connected +2 +0 +1\.2 ms +1\.4\.0 +\d+s ago\ngpu3 +joined +0 +0 +- +- +never\n$`, "node")
	h.wantOutput("^gpu2 is drained until `spacehost node return gpu2`\n$", "node", "drain", "gpu2", "--reason", "new fan")
	h.wantOutput(`\ngpu2 +connected, drained: new fan +2 `, "node")
	h.wantOutput(`^gpu2: connected, drained: new fan\n- It is drained\.\n- Its clock differs\.\n$`, "node", "explain", "gpu2")
	h.wantOutput(`^gpu2 is back in service\n$`, "node", "return", "gpu2")
	for _, row := range []struct {
		left time.Duration
		want string
	}{{8*time.Minute + 30*time.Second, `leaves in 8 min`}, {90*time.Second + 900*time.Millisecond, `leaves in (\d|[1-8]\d|90) s`}, {7*time.Hour + 41*time.Minute + 30*time.Second, `leaves in 7 h 41 min`}, {-time.Second, "left"}} {
		h.nodes.all[0].Leaves = &control.NodeEnd{At: time.Now().Add(row.left), Why: "job 4711 ends"}
		h.wantOutput(`\ngpu2 +connected, `+row.want+`: job 4711 ends +2 `, "node")
		h.wantOutput(`^gpu2: connected, `+row.want+`: job 4711 ends\n`, "node", "explain", "gpu2")
	}
	h.nodes.all[0].Leaves = nil
	h.wantOutput(`^gpu2 is revoked: its agent is refused from now on\n$`, "node", "revoke", "gpu2")
	if got := spacehostOn(t.Context(), "", "__complete", "node", "revoke", "--state", h.state, ""); !strings.HasPrefix(got.out, "gpu2\trevoked\ngpu3\tjoined\n") {
		t.Errorf("completion: %+v", got)
	}
	h.wantOutput(`^gpu2 is forgotten: `, "node", "forget", "gpu2")
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"node", "explain", "gpu9"}, ExitHost, "no node is named \"gpu9\"; `spacehost node` lists the nodes"},
		{[]string{"node", "token", "--for", "soon"}, ExitUsage, `--for "soon" is not a time from 1s to 365d`},
		{[]string{"node", "token", "--uses", "-1"}, ExitUsage, "--uses must be from 0 (any number) to 1000, not -1"},
		{[]string{"node", "revoke"}, ExitUsage, "accepts 1 arg(s)"},
	} {
		if got := h.spacehost(row.args...); got.code != row.code || !strings.Contains(got.err, row.want) {
			t.Errorf("%v: got %+v, want %d %s", row.args, got, row.code, row.want)
		}
	}
}

// runNode runs `spacehost agent` with another Run.
func runNode(t *testing.T, run func(context.Context, nodeagent.Config) error, args ...string) (string, error) {
	root := usage.Root(&cobra.Command{Use: "spacehost"})
	root.AddCommand(newAgent(func(context.Context, agent.ServeConfig) error { return errors.New("an agent of a host is started") }, run))
	var out strings.Builder
	root.SetArgs(append([]string{"agent"}, args...))
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestAgentJoins checks what the agent of a node gets from the command line, and wrong usage.
func TestAgentJoins(t *testing.T) {
	t.Setenv("SLURM_JOB_ID", "")
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "token"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(file, []byte(" shj_a_b_c\n"), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var got nodeagent.Config
	keep := func(_ context.Context, c nodeagent.Config) error {
		got = c
		return &nodeagent.RefusedError{Why: "this join token was used already"}
	}
	began := time.Now()
	_, err := runNode(t, keep, "--join", "front:7443", "--token-file", file, "--ends-in", "8h", "--drain", "10m", "--name", "gpu2", "--label", "h200", "--label", "fast", "--gpus", "mock:1xH200", "--state", dir)
	if exitCode(err) != ExitHost || err.Error() != "this join token was used already" {
		t.Errorf("got %v, exit code %d", err, exitCode(err))
	}
	if token, err := got.Token(); err != nil || token != "shj_a_b_c" {
		t.Errorf("the token is %q (%v)", token, err)
	}
	if got.Front != "front:7443" || got.Name != "gpu2" || strings.Join(got.Labels, " ") != "h200 fast" || got.State != dir || got.Version == "" {
		t.Errorf("got %+v", got)
	}
	if end, err := got.Ends(t.Context()); err != nil || got.Drain != 10*time.Minute || end.At.Before(began.Add(8*time.Hour)) || end.At.After(time.Now().Add(8*time.Hour)) {
		t.Errorf("the agent drains for %s, and ends at %v (%v)", got.Drain, end, err)
	}
	for _, wrong := range []struct{ file, want string }{{empty, "is empty; write the token"}, {file + "x", "token file: open "}} {
		_, _ = runNode(t, keep, "--join", "front:7443", "--token-file", wrong.file, "--gpus", "none", "--state", dir)
		if _, err := got.Token(); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%s: got %v, want %s", wrong.file, err, wrong.want)
		}
	}
	_, _ = runNode(t, keep, "--join", "front:7443", "--gpus", "none", "--state", dir)
	if got.Token != nil {
		t.Error("without --token-file there is a token")
	}
	if got.Ends != nil || got.Drain != time.Minute {
		t.Errorf("by default the agent drains for %s, and has an end: %v", got.Drain, got.Ends != nil)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--join", "front"}, `--join: "front" is not an address; give HOST:PORT, such as front.lab.example:7443`},
		{[]string{"--join", ":7443"}, `--join: ":7443" is not an address`},
		{[]string{"--join", "front:7443", "--name", "host"}, "the name host is that of the front's own machine"},
		{[]string{"--join", "front:7443", "--name", "GPU"}, `"GPU" cannot be the name or a label of a node`},
		{[]string{"--join", "front:7443", "--label", "a b"}, `"a b" cannot be the name or a label`},
		{[]string{"--join", "front:7443", "--orphan-after", "1m"}, "--join and --orphan-after exclude each other"},
		{[]string{"--join", "front:7443", "--gpus", "two"}, `--gpus: unknown GPUs "two"; use auto, none, or simulated ones`},
		{[]string{"--join", "front:7443", "--large", "2"}, "--large: "},
		{[]string{"--join", "front:7443", "--drain", "-1s"}, "--drain must be from 0s to 24h0m0s, not -1s"},
		{[]string{"--join", "front:7443", "--drain", "10m", "--ends-in", "10m10s"}, "--ends-in must be more than 10m10s, which is --drain and the time for an orderly end, not 10m10s"},
		{[]string{"--ends-in", "8h"}, "--ends-in requires --join"},
		{[]string{"--name", "gpu2"}, "--name requires --join"},
		{[]string{"--gpus", "none"}, "--gpus requires --join"},
		{[]string{"--token-file", "x"}, "--token-file requires --join"},
	} {
		if _, err := runNode(t, keep, append(row.args, "--state", dir)...); exitCode(err) != ExitUsage || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: got %v, want %s", row.args, err, row.want)
		}
	}
}
