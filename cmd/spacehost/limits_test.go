package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"spacehost/internal/feature"
	"spacehost/internal/proctree"
)

const limitsDir = "testdata/spaces/limits"

// TestIdleWorkerMakesNoStep checks that a thread that a GPU function leaves behind stops with the call, and continues with
// the next call in the same worker.
func TestIdleWorkerMakesNoStep(t *testing.T) {
	if _, err := proctree.OpenCgroups(); err != nil || feature.Disabled(feature.Cgroup) {
		t.Skipf("SKIPPED: no cgroup, so no worker is frozen: %v", err)
	}
	p := runOn(t, "v6", limitsDir)
	c := p.client()
	steps := fmt.Sprintf("/proc/%d/cwd/steps", spacePID(t, p))
	size := func() int64 {
		info, err := os.Stat(steps)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	worker := c.ok("/leave_thread")
	var before int64
	eventually(t, "the worker is frozen", patience, func() bool {
		last := before
		before = size()
		return before == last // two looks without a step between them
	})
	c.ok("/plain", "another call of the Space") // time passes, and the Space itself continues
	time.Sleep(time.Second)
	if after := size(); after != before || before == 0 {
		t.Errorf("%d steps before and %d after a second without a call", before, after)
	}
	if again := c.ok("/leave_thread"); again != worker {
		t.Errorf("the next call ran in worker %s, want %s", again, worker)
	}
	if after := size(); after <= before {
		t.Error("the worker did not continue")
	}
	inside, err := strconv.Atoi(worker)
	if err != nil {
		t.Fatal(err)
	}
	pid := hostPID(t, spacePID(t, p), inside)
	if code, out, errOut := p.cli("space", "restart", filepath.Base(limitsDir)); code != 0 {
		t.Fatalf("restart: %d %s%s", code, out, errOut)
	}
	eventually(t, "the restart has ended the frozen worker", patience, func() bool { return !alive(pid) && p.health().Spaces[0].Stage == "RUNNING" })
}

// TestSpaceAboveItsMemoryLimit checks the words for the visitor, the operator and `space list`, and that the Space is
// started again.
func TestSpaceAboveItsMemoryLimit(t *testing.T) {
	t.Setenv(feature.Variable, strings.Join([]string{os.Getenv(feature.Variable), feature.Cgroup}, ",")) // the kernel has words of its own
	p := runOn(t, "v6", limitsDir, "--limit", "memory=700MiB", "--limit", "cpu=1")
	for _, want := range []string{"memory=700MiB is checked every 2 s: ", "cpu=1 only lowers the priority of the Space to nice 5: "} {
		if !strings.Contains(p.text(), want) {
			t.Errorf("the start does not say %q", want)
		}
	}
	c := p.client()
	k := c.submit("/allocate", 900)
	const words = "more than its limit of 700 MiB"
	eventually(t, "`space list` shows the limit", patience, func() bool {
		_, out, _ := p.cli("space", "list")
		return strings.Contains(out, words) && strings.Contains(out, "RUNTIME_ERROR")
	})
	if r := k.wait(); !r.Failed || !strings.Contains(r.Err, words) {
		t.Errorf("the visitor reads %q", r.Err)
	}
	eventually(t, "it runs again", patience, func() bool { return p.health().Spaces[0].Stage == "RUNNING" })
	if got := p.client().ok("/plain", "again"); !strings.HasPrefix(got, "again ") {
		t.Errorf("got %q", got)
	}
	if text := p.text(); !strings.Contains(text, words+". It is started again. Load less, use smaller data types, or raise limits.memory (--limit memory=SIZE).") {
		t.Errorf("the operator does not read the limit:\n%s", text)
	}
}
