package main

import (
	"bytes"
	"strings"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/control"
)

// cli runs one command line in this process, on p's state folder.
func (p *product) cli(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, errOut bytes.Buffer
	code = cli.Run(p.t.Context(), append(args, "--state", p.State), &out, &errOut)
	return code, out.String(), errOut.String()
}

func (p *product) gpu() control.GPU {
	p.t.Helper()
	gpus := controlJSON[[]control.GPU](p.t, p, "/gpu")
	if len(gpus) != 1 || len(gpus[0].Slots) != 1 {
		p.t.Fatalf("gpus: %+v", gpus)
	}
	return gpus[0]
}

// fault injects a fault into the only GPU and checks the command's output.
func (p *product) fault(kind, want string) {
	p.t.Helper()
	code, out, stderr := p.cli("gpu", "fault", string(p.gpu().UUID), kind)
	if code != 0 || !strings.HasSuffix(out, ": "+want+"\n") {
		p.t.Fatalf("gpu fault %s: exit code %d, %q, %q; want %q", kind, code, out, stderr, want)
	}
}

// TestFaultyGPUIsNotGrantedUntilCleared injects each fault: the next call gets no GPU, the reason is shown, and `clear` ends it.
func TestFaultyGPUIsNotGrantedUntilCleared(t *testing.T) {
	t.Parallel()
	shared := runProduct(t, leasesDir, "--tier", "unlimited", "--queue-timeout", "4s", "--warm", "0")
	c := shared.client()
	for kind, reason := range map[string]string{
		"lost":         "is lost to the driver",
		"hang":         "did not answer within",
		"memory-stuck": "no process is listed on it, but 1536 MiB are in use",
	} {
		t.Run(kind, func(t *testing.T) {
			p := &product{ReadyLine: shared.ReadyLine, t: t}
			p.fault(kind, kind)
			if kind == "memory-stuck" {
				c.ok("/five", 0) // its memory stays in use
			}
			if r := c.call("/five", 0); !strings.Contains(r.Err, "No GPU was available") {
				t.Errorf("the visitor reads %q (%q), value %s; want no GPU available", r.Err, r.Title, r.Value)
			}
			eventually(t, "the reason is shown: "+reason, patience, func() bool {
				g := p.gpu()
				return g.Slots[0].Phase == "busy" && strings.Contains(g.Slots[0].Reason, reason)
			})
			if code, out, _ := p.cli("gpu"); code != 0 || !strings.Contains(out, reason) || !strings.Contains(out, "[simulated fault: "+kind+"]") {
				t.Errorf("spacehost gpu: exit code %d\n%s", code, out)
			}
			if code, out, _ := p.cli("gpu", "--json"); code != 0 || !strings.Contains(out, reason) || !strings.Contains(out, `"faults":["`+kind+`"]`) {
				t.Errorf("spacehost gpu --json: exit code %d\n%s", code, out)
			}
			p.fault("clear", "no fault")
			c.ok("/five", 0)
			eventually(t, "the slot is free again", patience, func() bool { g := p.gpu(); return g.Slots[0].Phase == "free" && g.Error == "" })
		})
	}
}

// TestWaitingCallGetsTheRepairedGPU checks that a call which waits for a lost GPU is granted once the fault is cleared.
func TestWaitingCallGetsTheRepairedGPU(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, "--tier", "unlimited")
	c := p.client()
	p.fault("xid=31", "xid=31")
	eventually(t, "the operator reads the Xid warning", patience, func() bool {
		return strings.Contains(p.text(), "The driver reports Xid 31 on GPU-")
	})
	c.ok("/five", 0) // the GPU keeps working
	p.fault("lost", "lost, xid=31")
	k := c.submit("/five", 0)
	eventually(t, "the call waits and the slot is busy", patience, func() bool {
		return len(p.leases().Open) == 1 && p.gpu().Slots[0].Phase == "busy"
	})
	p.fault("clear", "no fault")
	if r := k.wait(); r.Failed {
		t.Errorf("the waiting call after clear: %s", r.Err)
	}
}

func TestFaultRefusals(t *testing.T) {
	p := sample(t)
	tests := []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"GPU-elsewhere", "lost"}, cli.ExitHost, "no device GPU-elsewhere on this machine"},
		{[]string{"GPU-elsewhere", "burn"}, cli.ExitUsage, `unknown fault "burn"; use lost, hang, memory-stuck`},
		{[]string{"lost"}, cli.ExitUsage, "accepts 2 arg(s), received 1"},
	}
	for _, tt := range tests {
		code, _, stderr := p.cli(append([]string{"gpu", "fault"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("gpu fault %v: exit code %d, %q; want %d, %q", tt.args, code, stderr, tt.code, tt.stderr)
		}
	}
}
