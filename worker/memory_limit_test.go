package worker

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/queue"
)

// TestMemoryLimit checks that a Space above its limit of memory is ended with the limit and the use, and that its neighbour
// with the same limit continues. The memory is that of a child of the runner.
func TestMemoryLimit(t *testing.T) {
	limited := func(c *SupervisorConfig) { c.Limits = proctree.Limits{Memory: 256 << 20} }
	neighbour := newWorld(t, "good", "", limited)
	neighbour.ready(t)
	w := newWorld(t, "good", "", limited)
	w.ready(t)
	w.join(t, "s1", "allocate 400")
	reason := regexp.MustCompile(`^The Space used [0-9.]+ [MG]iB of memory, more than its limit of 256 MiB\.$`)
	var status Status
	eventually(t, "the Space is ended", func() bool { status = w.Status(); return status.Stage == space.RuntimeFailed })
	if !reason.MatchString(status.Reason) {
		t.Errorf("the reason is %q", status.Reason)
	}
	messages := w.receive(t, "s1", "")
	if failure := messages[len(messages)-2]; failure.Kind != queue.Completed || failure.Success || !strings.Contains(failure.Failure.Text, "more than its limit of 256 MiB") {
		t.Errorf("the visitor received %+v", failure)
	}
	eventually(t, "the operator reads it", func() bool {
		return strings.Contains(w.printed(), "more than its limit of 256 MiB. It is started again. Load less, use smaller data types, or raise limits.memory")
	})
	if got := neighbour.Status(); got.Stage != space.Running {
		t.Errorf("its neighbour: %+v", got)
	}
}

// TestLimitsOfAStart checks what is applied before the app's first line: files of a cgroup with controllers, and a lower
// priority without.
func TestLimitsOfAStart(t *testing.T) {
	limits := proctree.Limits{Memory: 1 << 30, Processes: 100, CPU: 2}
	p, r := startFake(t, "good", "", func(c *ProcessConfig) { c.Limits = limits })
	r.awaitOp(t, "manifest")
	if nice, err := unix.Getpriority(unix.PRIO_PROCESS, p.PID); err != nil || 20-nice != proctree.Nice {
		t.Errorf("nice is %d, %v", 20-nice, err)
	}
	if p.memoryLimit != limits.Memory {
		t.Errorf("the host watches for %d bytes", p.memoryLimit)
	}
	p, r = startFake(t, "good", "", func(c *ProcessConfig) { c.Limits, c.Cgroups = limits, trueCgroups(t) })
	r.awaitOp(t, "manifest")
	_, err := os.Stat(filepath.Join(p.tree.Cgroup, "memory.max")) // there if the machine delegates the memory controller
	if (err == nil) != (p.memoryLimit == 0) {
		t.Errorf("memory.max: %v, the host watches for %d bytes", err, p.memoryLimit)
	}
}

// TestStartIsRefused checks that a start waits for permission.
func TestStartIsRefused(t *testing.T) {
	refusal := &RefusedError{Reason: "The Space used 2 GiB of disk."}
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.MayStart = func() error { return refusal } })
	err := within(t, patient, "Run returns", w.ended)
	if err == nil || err.Error() != refusal.Reason || w.Status().Stage != space.RuntimeFailed || w.Status().Reason != refusal.Reason {
		t.Errorf("Run returned %v, status %+v", err, w.Status())
	}
}

// TestEndStart checks that only the named start is ended, with the words of the host, and that its calls are charged unless a reason for
// the ledger is given.
func TestEndStart(t *testing.T) {
	var mu sync.Mutex
	var uncharged []string
	w := newWorld(t, "good", "", func(c *SupervisorConfig) {
		c.Ending = func(instance, ledger string) {
			mu.Lock()
			defer mu.Unlock()
			uncharged = append(uncharged, instance+" "+ledger)
		}
	})
	w.ready(t)
	first := w.Instance()
	reason := &RefusedError{Reason: "The disk of the host was nearly full.", Next: "Make room."}
	w.EndStart("another", reason, "ended for total_limits")
	w.EndStart(first, reason, "ended for lack of disk")
	eventually(t, "the next start runs", func() bool { return w.Status().Stage == space.Running && w.Instance() != first })
	w.EndStart(first, reason, "ended for lack of disk")
	second := w.Instance()
	w.EndStart(second, reason, "")
	eventually(t, "the last start runs", func() bool { return w.Status().Stage == space.Running && w.Instance() != second })
	mu.Lock()
	defer mu.Unlock()
	if want := []string{first + " ended for lack of disk"}; !slices.Equal(uncharged, want) {
		t.Errorf("not charged: %q, want %q", uncharged, want)
	}
	if !strings.Contains(w.printed(), "The disk of the host was nearly full. It is started again. Make room.") {
		t.Errorf("the operator reads:\n%s", w.printed())
	}
}
