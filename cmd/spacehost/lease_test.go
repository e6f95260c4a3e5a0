package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

const leasesDir = "testdata/spaces/leases"

// TestOverstayingWorkerIsEnded runs a function that declares 5 s and sleeps for 30 s.
func TestOverstayingWorkerIsEnded(t *testing.T) { eachLineInTurn(t, overstayingWorkerIsEnded) }

func overstayingWorkerIsEnded(t *testing.T, line string) {
	p := runOn(t, line, leasesDir)
	c := p.client()
	space := spacePID(t, p)
	dir := fmt.Sprintf("/proc/%d/cwd", space)
	k := c.submit("/overstay", 30)
	active := awaitActive(t, p)
	pids := overstayPIDs(t, space, dir)
	r := k.wait()
	took := time.Since(active)
	want := "GPU task aborted"
	if strings.HasPrefix(line, "v4") { // the words of its gradio_client
		want = "The upstream Gradio app has raised an exception: 'GPU task aborted'"
	}
	if r.Err != want {
		t.Errorf("the visitor reads %q (%q)", r.Err, r.Title)
	}
	if took < 5*time.Second || took > 45*time.Second { // an idle machine takes 6 s
		t.Errorf("ended %s after /allow, want 5.0 s and the time of an end", took)
	}
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d has exited", pid), patience, func() bool { return !alive(pid) })
	}
	if got := c.ok("/plain", "still there"); got != fmt.Sprintf("still there %d", insidePID(space)) {
		t.Errorf("the next call returned %q, want pid %d", got, insidePID(space))
	}
	if b := p.balance(); b.ChargedSeconds != 5 || b.HeldSeconds != 0 {
		t.Errorf("charged %v, held %v; want 5 and 0", b.ChargedSeconds, b.HeldSeconds)
	}
	if !strings.Contains(p.text(), "GPU time is over: 5 s declared") {
		t.Errorf("the output does not name the exceeded limit:\n%s", p.text())
	}
}

// TestLeaseWithoutRelease raises an exception that `spaces` cannot unpickle, so it sends no /release. The operator's message does
// not suggest a longer duration.
func TestLeaseWithoutRelease(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir)
	if r := p.client().call("/unloadable"); !r.Failed {
		t.Errorf("the visitor reads %s", r.Value)
	}
	eventually(t, "the lease has ended, 3 s are charged and none are held", patience, func() bool {
		b := p.balance()
		return len(p.leases().Open) == 0 && b.ChargedSeconds == 3 && b.HeldSeconds == 0
	})
	if output := p.text(); !strings.Contains(output, "The call had already ended, but the Space did not release the GPU") || strings.Contains(output, "Raise @spaces.GPU") {
		t.Errorf("the operator reads:\n%s", output)
	}
}

func spacePID(t *testing.T, p *product) int {
	t.Helper()
	spaces := p.health().Spaces
	if len(spaces) != 1 || spaces[0].Stage != "RUNNING" || spaces[0].PID == 0 {
		t.Fatalf("health: %+v", spaces)
	}
	return spaces[0].PID
}

// awaitActive waits until the only open lease is active, and returns the time of its /allow.
func awaitActive(t *testing.T, p *product) (at time.Time) {
	t.Helper()
	eventually(t, "a lease is active", patience, func() bool {
		for _, l := range p.leases().Open {
			if l.State == lease.Active {
				at = l.Deadline.Add(-time.Duration(l.DeclaredSeconds * float64(time.Second)))
				return true
			}
		}
		return false
	})
	return at
}

// overstayPIDs waits until the function has written its pid and that of its child, and returns them as the host's.
func overstayPIDs(t *testing.T, space int, dir string) (pids []int) {
	t.Helper()
	var data []byte
	eventually(t, "the function has written its pids", patience, func() bool {
		data, _ = os.ReadFile(filepath.Join(dir, "overstay.pids")) // it may not exist yet
		return len(strings.Fields(string(data))) == 2
	})
	for _, field := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, hostPID(t, space, pid))
	}
	return pids
}

// TestQuotaHoldsWhileACallWaits makes calls of 60 s with a quota of 120 s on one Device. A runs, B waits, and C is refused at
// once. After A returns its unused seconds, C is granted.
func TestQuotaHoldsWhileACallWaits(t *testing.T) { eachLine(t, quotaHoldsWhileACallWaits) }

func quotaHoldsWhileACallWaits(t *testing.T, line string) {
	p := runOn(t, line, leasesDir, "--tier", "unauthenticated")
	c := p.client()
	a := c.submit("/minute", 3)
	awaitActive(t, p)
	b := c.submit("/minute", 0)
	eventually(t, "B is waiting", patience, func() bool { return states(p.leases())[lease.Waiting] == 1 })
	refused := c.call("/minute", 0)
	want := "You have exceeded your ZeroGPU quota (60s requested vs. 0s left). Try again in 0:0"
	if !strings.HasPrefix(refused.Err, want) {
		t.Errorf("C reads %q, want %q...", refused.Err, want)
	}
	for name, k := range map[string]call{"A": a, "B": b} {
		if r := k.wait(); r.Failed {
			t.Errorf("%s: %s", name, r.Err)
		}
	}
	c.ok("/minute", 0)
	if got := p.balance(); got.ChargedSeconds < 3 || got.ChargedSeconds > 30 || got.HeldSeconds != 0 {
		t.Errorf("charged %v, held %v; want about 3 and 0", got.ChargedSeconds, got.HeldSeconds)
	}
	illegal := c.call("/too_long")
	if want := "The requested GPU duration (300s) is larger than the maximum allowed"; !strings.HasPrefix(illegal.Err, want) {
		t.Errorf("300 s requested with a quota of 120 s: got %q, want %q...", illegal.Err, want)
	}
}

func states(leases control.Leases) map[lease.State]int {
	n := map[lease.State]int{}
	for _, l := range leases.Open {
		n[l.State]++
	}
	return n
}

// TestFortyCalls submits 40 calls at once. Each takes 1 s and declares 5 s, and the quota is 210 s.
func TestFortyCalls(t *testing.T) { eachLine(t, fortyCalls) }

func fortyCalls(t *testing.T, line string) {
	p := runOn(t, line, leasesDir, "--queue-timeout", "10m", "--gpus", "mock:2xH200")
	c := p.client()
	before := p.hubQuota()
	if before.Base != 210 || before.Current != 210 || before.ResetsAt != nil {
		t.Errorf("quota before the first use: %+v", before)
	}
	var calls []call
	for range 40 {
		calls = append(calls, c.submit("/five", 1))
	}
	for i, k := range calls {
		if r := k.wait(); r.Failed {
			t.Errorf("call %d: %s", i, r.Err)
		}
	}
	checkFortyLeases(t, p)
	after := p.hubQuota()
	if after.Base != 210 || after.Current < int(170-40*mostOverhead.Seconds()) || after.Current > 170 || after.ResetsAt == nil {
		t.Errorf("quota after: %+v", after)
	}
}

func checkFortyLeases(t *testing.T, p *product) {
	t.Helper()
	leases := p.leases()
	if len(leases.Open) != 0 || len(leases.Ended) != 40 {
		t.Errorf("%d open and %d ended leases, want 0 and 40", len(leases.Open), len(leases.Ended))
	}
	var charged float64
	for _, l := range leases.Ended {
		charged += l.ChargedSeconds
		if l.State != lease.Released || l.Reason != "released" {
			t.Errorf("lease %s: %s, %s", l.Lease, l.State, l.Reason)
		}
	}
	b := p.balance()
	if math.Abs(b.ChargedSeconds-charged) > 0.001 || b.HeldSeconds != 0 || math.Abs(210-charged-b.LeftSeconds) > 0.001 {
		t.Errorf("balance %+v, want it to match the leases' sum of %v", b, charged)
	}
	// Each call takes one second plus the overhead of `spaces`: 9 ms on an idle machine, more on a loaded one.
	if b.LeftSeconds > 170 || b.LeftSeconds < 170-40*mostOverhead.Seconds() {
		t.Errorf("%v s left, want 170 less the overhead of the calls", b.LeftSeconds)
	}
	t.Logf("%v s left of 210 after forty calls of a second", b.LeftSeconds)
}

// mostOverhead is what a call may be charged beyond the time of its function, on a loaded machine.
const mostOverhead = 1500 * time.Millisecond

// TestOneWorkerPerSlot checks that the host ends workers which `spaces` forgets after an exception without ending them.
func TestOneWorkerPerSlot(t *testing.T) { eachLine(t, oneWorkerPerSlot) }

func oneWorkerPerSlot(t *testing.T, line string) {
	p := runOn(t, line, leasesDir)
	c := p.client()
	space := spacePID(t, p)
	for i := range 6 {
		r := c.call("/sometimes", i%3 == 1)
		if r.Failed != (i%3 == 1) {
			t.Errorf("call %d: failed %v: %s", i, r.Failed, r.Err)
		}
		if workers := childrenOf(t, space); len(workers) > 1 {
			t.Errorf("after call %d, workers %v are running, want at most one", i, workers)
		}
	}
}

// TestWarmWorker checks that a function's next call reuses its worker, and that a call of another function evicts it.
func TestWarmWorker(t *testing.T) { warmWorker(t, "v6") }

func warmWorker(t *testing.T, line string) {
	t.Helper()
	p := runOn(t, line, leasesDir)
	c := p.client()
	first := c.ok("/five", 0)
	inside, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	pid := hostPID(t, spacePID(t, p), inside)
	if code, out, _ := p.cli("gpu"); code != 0 || !strings.Contains(out, fmt.Sprintf("warm for leases (worker %d)", pid)) {
		t.Errorf("spacehost gpu: exit code %d\n%s", code, out)
	}
	if second := c.ok("/five", 1); second != first {
		t.Errorf("the second call ran in worker %s, the first in %s", second, first)
	}
	other := c.ok("/sometimes", false)
	if other == first || alive(pid) {
		t.Errorf("the other function ran in worker %s; worker %s is still running: %v", other, first, alive(pid))
	}
	ended := p.leases().Ended
	if len(ended) != 3 || ended[1].ChargedSeconds < 1 || ended[1].ChargedSeconds > 1+mostOverhead.Seconds() {
		t.Errorf("ended %+v; want one second charged for the warm call", ended)
	}
}

// childrenOf lists a Space's running forked workers. Each has its own process group.
func childrenOf(t *testing.T, space int) (pids []int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", space))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of %d: %v", space, err)
	}
	for _, path := range threads {
		children, _ := os.ReadFile(path) // a thread may have ended
		for _, field := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(field) // digits written by the kernel
			if group, err := syscall.Getpgid(pid); err == nil && group == pid && alive(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// TestSharesOfAGPU lets two calls share the only GPU. A third call of size xlarge waits for both and then has the whole GPU.
func TestSharesOfAGPU(t *testing.T) {
	t.Parallel()
	p := runProduct(t, leasesDir, "--tier", "unlimited", "--large", "1/2")
	c := p.client()
	halves := []call{c.submit("/five", 3), c.submit("/five", 3)}
	var device gpu.DeviceUUID
	eventually(t, "both halves are granted", patience, func() bool {
		open := p.leases().Open
		if len(open) != 2 || open[0].State != lease.Active || open[1].State != lease.Active {
			return false
		}
		device = open[0].Device
		if device != open[1].Device || *open[0].Slot == *open[1].Slot {
			t.Errorf("got slots %d and %d on %s and %s, want two slots of one device", *open[0].Slot, *open[1].Slot, device, open[1].Device)
		}
		return true
	})
	if code, out, _ := p.cli("gpu"); code != 0 || strings.Count(out, string(device)) != 2 || strings.Count(out, "held by leases") != 2 {
		t.Errorf("spacehost gpu: exit code %d\n%s", code, out)
	}
	whole := c.submit("/whole", 1)
	eventually(t, "xlarge has both halves", patience, func() bool {
		for _, l := range p.leases().Open {
			if l.Size == "xlarge" && l.State == lease.Active {
				return true
			}
		}
		return false
	})
	if open := p.leases().Open; len(open) != 1 {
		t.Errorf("open leases beside the xlarge one: %+v", open)
	}
	for _, k := range append(halves, whole) {
		if r := k.wait(); r.Failed {
			t.Errorf("a call failed: %s", r.Err)
		}
	}
	for _, l := range p.leases().Ended {
		if l.State != lease.Released {
			t.Errorf("a lease ended as %s: %s, want released", l.State, l.Reason)
		}
	}
}
