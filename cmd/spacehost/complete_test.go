package main

import (
	"bytes"
	"strings"
	"testing"

	"spacehost/internal/cli"
)

// TestCompletion asks what a shell asks at the Tab key: the Spaces, GPUs, people, tokens and accounts of the running host.
func TestCompletion(t *testing.T) {
	t.Parallel()
	p := runProduct(t, "testdata/spaces/scripts")
	for _, args := range [][]string{{"user", "add", "ada", "--tier", "pro"}, {"token", "create", "ada", "--label", "laptop"}} {
		if code, _, stderr := p.cli(args...); code != 0 {
			t.Fatalf("%v: %s", args, stderr)
		}
	}
	complete := func(state string, words ...string) string {
		t.Helper()
		var out, stderr bytes.Buffer
		args := append([]string{"__complete"}, words[:len(words)-1]...)
		args = append(args, "--state", state, words[len(words)-1])
		if code := cli.Run(t.Context(), args, &out, &stderr); code != 0 {
			t.Errorf("%v: exit code %d: %s", args, code, stderr.String())
		}
		return out.String()
	}
	for command, want := range map[string]string{
		"space restart": "scripts\tRUNNING", "gpu drain": "GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd\tNVIDIA H200 (simulated)",
		"user tier": "ada\ttier pro", "token create": "ada\ttier pro", "token revoke": "\tof ada laptop", "quota grant": "user:ada\ttier pro",
	} {
		got := complete(p.State, append(strings.Fields(command), "")...)
		if !strings.Contains(got, want) || !strings.HasSuffix(strings.TrimSpace(got), ":4") { // 4: no file names
			t.Errorf("%s is completed with %q, want %q", command, got, want)
		}
	}
	if got := complete(p.State, "space", "restart", "scripts", ""); strings.Contains(got, "RUNNING") {
		t.Errorf("a second argument is completed with %q", got)
	}
	if got := strings.TrimSpace(complete(t.TempDir(), "space", "restart", "")); got != ":4" {
		t.Errorf("without a host: %q", got)
	}
}
