package main

import (
	"slices"
	"strings"
	"testing"

	"spacehost/internal/cli"
)

// TestDrainedGPUIsNotGranted drains a GPU: the running call finishes, the next call gets no GPU, and visitor and operator read
// the reason.
func TestDrainedGPUIsNotGranted(t *testing.T) {
	p := runProduct(t, leasesDir, "--tier", "unlimited", "--queue-timeout", "4s")
	c, uuid := p.client(), string(p.gpu().UUID)
	runGPU := func(want string, args ...string) {
		t.Helper()
		if code, out, stderr := p.cli(append([]string{"gpu"}, args...)...); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("gpu %v: exit code %d, %q, %q; want %q", args, code, out, stderr, want)
		}
	}
	running := c.submit("/five", 2)
	awaitActive(t, p)
	runGPU("is drained: no new call gets it until", "drain", uuid, "--reason", "new fan on Monday")
	runGPU(", then drained: new fan on Monday")
	if r := running.wait(); r.Failed {
		t.Errorf("the running call failed: %s", r.Err)
	}
	if r := c.call("/five", 0); !strings.Contains(r.Err, "No GPU was available") {
		t.Errorf("the next call: error %q, value %s; want no GPU available", r.Err, r.Value)
	} else if !slices.Contains(r.Logs, "The GPUs of this host are out of service: new fan on Monday. Your call waits, and nothing is charged.") {
		t.Errorf("the visitor reads %q, want the operator's reason", r.Logs)
	}
	runGPU("drained: new fan on Monday")
	runGPU(`"drained":{"reason":"new fan on Monday","operator":true}`, "--json")
	runGPU("is back in service", "return", uuid)
	c.ok("/five", 0)

	p.fault("xid=79", "xid=79") // Xid 79 means broken hardware
	eventually(t, "the GPU is drained", patience, func() bool {
		_, out, _ := p.cli("gpu")
		return strings.Contains(out, "drained: the driver has reported Xid 79") &&
			strings.Contains(p.text(), "WARNING: the driver reports Xid 79") &&
			p.metrics()[`spacehost_device_xids_total{uuid="`+uuid+`",xid="79"}`] == 1
	})
	runGPU("is back in service", "return", uuid)
	c.ok("/five", 0)

	for _, reason := range []string{"new\nfan", "new\tfan", strings.Repeat("fan ", 51)} {
		if code, _, stderr := p.cli("gpu", "drain", uuid, "--reason", reason); code != cli.ExitUsage || !strings.Contains(stderr, "the reason must be at most 200 bytes of printable text") {
			t.Errorf("drain for %q: exit code %d, %q", reason, code, stderr)
		}
	}
	if code, _, stderr := p.cli("gpu", "drain", "GPU-elsewhere"); code != cli.ExitHost || !strings.Contains(stderr, "no device GPU-elsewhere on this machine") {
		t.Errorf("drain of an unknown device: exit code %d, %q", code, stderr)
	}
	if code, _, stderr := p.cli("gpu", "return"); code != cli.ExitUsage {
		t.Errorf("return without a device: exit code %d, %q", code, stderr)
	}
}
