package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/feature"
)

// kindOfNode says what a Space has at the path of the GPU's node.
const kindOfNode = `
import os, stat
try: result = "device" if stat.S_ISCHR(os.stat("/dev/nvidia0").st_mode) else "other"
except OSError as e: result = type(e).__name__
`

// TestNodesByLease checks `gpu_nodes: lease` with a device that stands for the node of the simulated GPU: a Space has it
// during its own call only, and what keeps it open is ended.
func TestNodesByLease(t *testing.T) {
	t.Parallel()
	requireOwnMachine(t, "`gpu_nodes: lease` is refused with `on`")
	requireLevel(t, "namespaces")
	for level, users := range map[string]string{"namespaces": "", "users": fmt.Sprintf("users: %d-%d\n", firstUID, firstUID+1)} {
		t.Run(level, func(t *testing.T) {
			if level == "users" {
				requireRoot(t)
			}
			nodesByLease(t, fmt.Sprintf("isolation: %s\n%s", level, users))
		})
	}
}

func nodesByLease(t *testing.T, isolation string) {
	dir := t.TempDir()
	var spaces strings.Builder
	for _, name := range []string{"one", "two"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS("testdata/spaces/scripts")); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&spaces, "- {folder: %s, address: ':0', python: %s}\n", filepath.Join(dir, name), environment(t))
	}
	file := filepath.Join(dir, "lab.yaml")
	writeFile(t, file, isolation+"gpu_nodes: lease\ngpus: {machine: mock:1xH200}\ntiers: {unauthenticated: {unlimited: true}}\nconsole: ':0'\nspaces:\n"+spaces.String())
	p := startCommandWith(t, []string{feature.SimulatedNode + "=/dev/zero"}, t.TempDir(), "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	one, two := p.clientAt(p.Spaces[0].URL), p.clientAt(p.Spaces[1].URL)
	want := func(when string, c *client, api, script, want string) {
		t.Helper()
		if got := eval[string](c, api, script); got != want {
			t.Errorf("%s: %s has %s at the node, want %s", when, api, got, want)
		}
	}
	hidden := func(when string, c *client) {
		t.Helper()
		want(when, c, "/run", kindOfNode, "FileNotFoundError")
	}
	hidden("at the start", one)
	for _, call := range []string{"a new worker", "a warm worker"} {
		want("in a call of "+call, one, "/run_on_gpu", kindOfNode, "device")
		hidden("after a call of "+call, one)
	}
	inCall := filepath.Join(p.State, "spaces", "one", "home", "in-call")
	long := one.submit("/run_on_gpu", fmt.Sprintf("import time; open(%q, 'w').close(); time.sleep(6); result = 0", inCall))
	eventually(t, "the call runs", patience, func() bool { _, err := os.Stat(inCall); return err == nil })
	hidden("during a call of another Space", two)
	want("beside a call of its own", p.clientAt(p.Spaces[0].URL), "/run", `
import subprocess
kept = open("/dev/nvidia0")
result = "device" if subprocess.Popen(["sleep", "86399"], stdin=kept).pid else ""
kept.close()
`, "device")
	if r := long.wait(); r.Failed {
		t.Errorf("the call failed: %s", r.Err)
	}
	eventually(t, "the process that has kept the node is ended", patience, func() bool { return len(withArgument("sleep 86399")) == 0 })
	if !strings.Contains(p.text(), "outside @spaces.GPU; the host ends it") {
		t.Errorf("the operator reads:\n%s", p.text())
	}
	want("in a later call", two, "/run_on_gpu", kindOfNode, "device")
	hidden("after a later call", two)
}
