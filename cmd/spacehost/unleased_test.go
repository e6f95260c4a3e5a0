package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnleasedUseIsReported puts a process without a lease on the only GPU: first a foreign one, then the Space's own.
func TestUnleasedUseIsReported(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, "--tier", "unlimited", "--queue-timeout", "3s")
	foreign := exec.Command("sleep", "600")
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Process.Kill(); _ = foreign.Wait() }()
	for _, row := range []struct {
		pid                    int
		space, message, listed string
	}{
		{foreign.Process.Pid, "", "which belongs to no Space, uses", "not of a Space"},
		{spacePID(t, p), "leases", "outside @spaces.GPU. The GPU is not lent until the process frees it", "Space leases"},
	} {
		fault := fmt.Sprintf("process=%d", row.pid)
		p.fault(fault, fault)
		eventually(t, "the process is reported", patience, func() bool {
			_, out, _ := p.cli("gpu")
			return strings.Contains(out, fmt.Sprintf("[without a lease: pid %d, %s]", row.pid, row.listed)) && strings.Contains(p.text(), row.message)
		})
		eventually(t, "the process is counted, and the slot is busy", patience, func() bool {
			seen := p.metrics()
			return seen[fmt.Sprintf(`spacehost_device_uninvited_processes{space=%q,uuid=%q}`, row.space, p.gpu().UUID)] == 1 && seen[`spacehost_slots{phase="busy"}`] == 1
		})
		if r := p.client().call("/five", 0); !strings.Contains(r.Err, "No GPU was available") {
			t.Errorf("the visitor reads %q, value %s", r.Err, r.Value)
		}
		p.fault("clear", "no fault")
		if !alive(row.pid) {
			t.Errorf("pid %d was killed", row.pid)
		}
	}
	p.client().ok("/five", 0)
}

// TestUnleasedUseIsKilled checks that `serve` kills unleased processes that a Space started.
func TestUnleasedUseIsKilled(t *testing.T) {
	t.Parallel()
	requireOwnMachine(t, "`gpu fault` concerns the GPUs of the host's own machine")
	dir := t.TempDir()
	folder, err := filepath.Abs(leasesDir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lab.yaml")
	text := fmt.Sprintf("gpus: {machine: mock:1xH200}\ntiers: {unauthenticated: {unlimited: true}}\naddress: 127.0.0.1:0\nconsole: 127.0.0.1:0\nspaces:\n  - {folder: %s, address: 127.0.0.1:0, python: %s}\n", folder, environment(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, t.TempDir(), "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	space := spacePID(t, p)
	k := p.client().submit("/slow", 20) // runs in a thread of the Space's own process, without a worker
	p.fault(fmt.Sprintf("process=%d", space), fmt.Sprintf("process=%d", space))
	if r := k.wait(); !r.Failed {
		t.Errorf("the call returned %s from a process that had to be killed", r.Value)
	}
	eventually(t, "the Space is running again", patience, func() bool {
		s := p.health().Spaces[0]
		return s.Stage == "RUNNING" && s.PID != space
	})
	if !strings.Contains(p.text(), "outside @spaces.GPU; the host ends it") {
		t.Errorf("the operator reads:\n%s", p.text())
	}
	if n := p.metrics()[`spacehost_worker_kills_total{cause="uninvited",space="leases"}`]; n != 1 {
		t.Errorf("%v kills were counted, want 1", n)
	}
}
