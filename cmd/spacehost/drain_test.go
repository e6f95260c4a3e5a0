package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/cli"
)

// TestDrainedGPUIsNotGranted drains a GPU: the running call finishes, the next call gets no GPU, and visitor and operator read
// the reason.
func TestDrainedGPUIsNotGranted(t *testing.T) {
	t.Parallel()
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
	runGPU("is drained: no new call gets it until", "drain", "0", "--until", "2100-01-01 00:00", "--reason", "new fan on Monday")
	runGPU(", then drained: new fan on Monday")
	if r := running.wait(); r.Failed {
		t.Errorf("the running call failed: %s", r.Err)
	}
	r := c.call("/five", 0)
	if !strings.Contains(r.Err, "No GPU was available") || !strings.Contains(r.Err, "Retry later") || strings.Contains(r.Err, "Subscribe") {
		t.Errorf("the next call: error %q, value %s; want no GPU available, and no advertisement", r.Err, r.Value)
	}
	zone, _ := time.Date(2100, 1, 1, 0, 0, 0, 0, time.Local).Zone()
	reason := "The GPUs of this host are out of service until Jan 1 00:00 " + zone + ": new fan on Monday"
	if !slices.Contains(r.Logs, reason+". Your call waits, and nothing is charged.") {
		t.Errorf("the visitor reads %q, want the operator's reason", r.Logs)
	}
	if _, body := request(t, "GET", p.Console+"/healthz", "", nil); !strings.Contains(body, `"status":"maintenance","maintenance":"`+reason) {
		t.Errorf("healthz: %s", body)
	}
	if code, out, stderr := p.cli("explain", "local", "--seconds", "5"); code != 0 || !strings.Contains(out, "fits, and waits: "+reason) {
		t.Errorf("explain: exit code %d, %s, %s", code, out, stderr)
	}
	runGPU("drained: new fan on Monday (until 2100-01-01 00:00)")
	runGPU(`"drained":{"reason":"new fan on Monday","operator":true,"until":"`, "--json")
	runGPU("is back in service", "return", uuid[:8])
	runGPU("will be drained from 2099-12-31 20:00 until 2100-01-01 00:00, or `spacehost gpu return", "drain", "0", "--from", "2099-12-31 20:00", "--until", "2100-01-01 00:00")
	runGPU(", drained from 2099-12-31 20:00 until 2100-01-01 00:00: by an operator's command")
	c.ok("/five", 0)
	runGPU("is back in service", "return", "0")
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
