package worker

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/space"
	"spacehost/queue"
)

// hungWorld is a real Space of testdata/apps/hung with short times.
type hungWorld struct {
	*world
	mu    sync.Mutex
	hangs []Hang
	ends  []string // reasons for the ledger
}

func newHungWorld(t *testing.T, seconds float64, l Liveness) *hungWorld {
	t.Helper()
	python := testPython(t)
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hungWorld{}
	h.world = prepareWorld(t, func(c *SupervisorConfig) {
		local(c).Dir, c.Liveness = appDir(t, "hung"), func() Liveness { return l }
		c.Hung = func(one Hang) { h.mu.Lock(); defer h.mu.Unlock(); h.hangs = append(h.hangs, one) }
		c.Ending = func(_, reason string) { h.mu.Lock(); defer h.mu.Unlock(); h.ends = append(h.ends, reason) }
	})
	h.Prepare(python, runnerDir, pythonEnv(t, python, fmt.Sprintf("HANG_SECONDS=%g", seconds)))
	h.run(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.printed())
		}
	})
	h.ready(t)
	h.call(t, "launched", "work") // launch() looks for the server after the manifest
	h.receive(t, "launched", queue.Completed)
	return h
}

// call joins a call of a function and returns without its result.
func (h *hungWorld) call(t *testing.T, session queue.SessionHash, name string) {
	t.Helper()
	m, _ := h.queue.Manifest()
	for _, e := range m.Endpoints {
		if e.APIName == name {
			body := fmt.Sprintf(`{"data":[],"fn_index":%d,"session_hash":%q,"event_data":null,"trigger_id":null}`, e.ID, session)
			request := visitorRequest
			request.Path = m.Prefix + request.Path
			event := &queue.Event{ID: queue.NewEventID(), Session: session, Body: []byte(body), Payer: owner, Endpoint: e, Request: request}
			if err := h.queue.Join(event); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no function %s in %+v", name, m.Endpoints)
}

func (h *hungWorld) hang(t *testing.T) (found Hang) {
	t.Helper()
	eventually(t, "the hang is reported", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.hangs) > 0 {
			found = h.hangs[0]
		}
		return len(h.hangs) > 0
	})
	return found
}

// checkHang checks the report, and that the line of the function is in the stacks.
func checkHang(t *testing.T, got Hang, cause HangCause, text, place string) {
	t.Helper()
	if got.Cause != cause || !strings.Contains(got.Text, text) || !strings.HasSuffix(got.Place, place) || !strings.HasPrefix(got.Place, "app.py:") {
		t.Errorf("got %q, %q, %q; want %q, a text with %q, a place in %q", got.Cause, got.Text, got.Place, cause, text, place)
	}
	var line int
	if _, err := fmt.Sscanf(got.Place, "app.py:%d in", &line); err != nil || !strings.Contains(got.Stacks, fmt.Sprintf("/hung/app.py\", line %d in ", line)) {
		t.Errorf("place %q (%v) is not in the stacks\n%s", got.Place, err, got.Stacks)
	}
}

func (h *hungWorld) recovers(t *testing.T) {
	t.Helper()
	eventually(t, "it is RUNNING again", func() bool { return h.Status().Stage == space.Running })
	eventually(t, "the end of the hang is reported", func() bool { return strings.Contains(h.printed(), "note: RUNNING again: it answers after ") })
}

// TestAHeldLock holds the interpreter lock in C: no Python thread runs, and only the handler of the signal writes.
func TestAHeldLock(t *testing.T) {
	h := newHungWorld(t, 6, Liveness{After: 2 * time.Second})
	h.call(t, "first", "hold_the_lock")
	checkHang(t, h.hang(t), HangInterpreter, "no Python thread of it runs", " in hold_the_lock")
	if got := h.Status(); got.Stage != space.Unresponsive || got.Reason != "The Space does not answer at the moment." || !strings.Contains(got.Hint, "app.py:") {
		t.Errorf("status %+v", got)
	}
	if _, _, up := h.Upstream(); up {
		t.Error("visitors are sent to it")
	}
	h.call(t, "waits", "work") // it starts when the Space answers again
	h.recovers(t)
	messages := h.receive(t, "waits", queue.Completed)
	if last := messages[len(messages)-1]; !last.Success {
		t.Errorf("the call that waited got %+v", last)
	}
}

// TestABlockedLoop runs forever in an async function: threads answer, and no visitor is served.
func TestABlockedLoop(t *testing.T) {
	h := newHungWorld(t, 600, Liveness{After: 2 * time.Second, RestartAfter: time.Second})
	h.call(t, "first", "spin")
	eventually(t, "the call runs", func() bool { return h.queue.Busy() > 0 })
	checkHang(t, h.hang(t), HangLoop, "its event loop is blocked", " in spin")
	h.call(t, "waits", "work")
	messages := h.receive(t, "first", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil || !strings.HasPrefix(last.Failure.Text, "The Space did not answer for ") || !strings.HasSuffix(last.Failure.Text, "so the host has restarted it.") {
		t.Errorf("the visitor of the call reads %+v", last.Failure)
	}
	messages = h.receive(t, "waits", queue.Completed) // by the next start
	if last := messages[len(messages)-1]; !last.Success {
		t.Errorf("the call that waited got %+v", last)
	}
	h.note(func() {
		if len(h.starts) != 2 || len(h.ends) != 1 || h.ends[0] != "space unresponsive" {
			t.Errorf("%d starts, ended for %q", len(h.starts), h.ends)
		}
	})
}

func TestAStoppedProcess(t *testing.T) {
	h := newHungWorld(t, 600, Liveness{After: 2 * time.Second})
	pid := h.Status().PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	checkHang(t, h.hang(t), HangInterpreter, "its process is stopped (SIGSTOP)", " in <module>")
	p := h.current()
	eventually(t, "it is stopped as before", func() bool { s, _ := p.runner().Status(); return s.IsStopped() })
	if got := h.Status().Stage; got != space.Unresponsive {
		t.Errorf("stage %s", got)
	}
	if printed := h.printed(); strings.Contains(printed, "RUNNING again") {
		t.Errorf("it counts as running: %s", printed)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.recovers(t)
	if len(h.starts) != 1 {
		t.Errorf("%d starts", len(h.starts))
	}
}

// TestClosedDescriptors checks the stacks of a process that has nothing left but memory, and that the next start follows.
func TestClosedDescriptors(t *testing.T) {
	h := newHungWorld(t, 600, Liveness{After: 2 * time.Second})
	h.call(t, "first", "close_descriptors")
	checkHang(t, h.hang(t), HangDescriptors, "the app has closed the descriptors of its process", " in close_descriptors")
	messages := h.receive(t, "first", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil || !strings.Contains(last.Failure.Text, "it closed the descriptor of its channel to the host") {
		t.Errorf("the visitor reads %+v", last.Failure)
	}
	eventually(t, "it has started again", func() bool { return h.Status().Stage == space.Running })
}

// TestAClosedServer closes the descriptors of the server alone: the process lives, and nothing serves visitors.
func TestAClosedServer(t *testing.T) {
	h := newHungWorld(t, 600, Liveness{After: 2 * time.Second, RestartAfter: time.Second})
	h.call(t, "first", "close_server")
	checkHang(t, h.hang(t), HangServer, "the event loop of its server has ended", " in close_server")
	eventually(t, "it has started again", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.ends) == 1 && h.Status().Stage == space.Running
	})
}
