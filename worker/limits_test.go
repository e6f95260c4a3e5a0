package worker

import (
	"fmt"
	"path/filepath"
	"testing"

	"spacehost/internal/identity"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/queue"
)

// TestLimits runs a real app that sets no limits in queue(). The limits are those of ZeroGPU and of Gradio's
// variable.
func TestLimits(t *testing.T) {
	python := testPython(t)
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	w := prepareWorld(t, func(c *SupervisorConfig) { local(c).Dir = appDir(t, "limits") })
	w.Prepare(python, runnerDir, pythonEnv(t, python, "SPACES_ZERO_GPU=true", "GRADIO_DEFAULT_CONCURRENCY_LIMIT=3"))
	w.run(t)
	within(t, 3*patient, "the app is up", w.Ready())
	m, _ := w.queue.Manifest()
	if m.MaxSize == nil || *m.MaxSize != 1 || !m.LiveUpdates || m.MaxThreads != 40 {
		t.Errorf("got max_size %v, live updates %v, %d threads", m.MaxSize, m.LiveUpdates, m.MaxThreads)
	}
	named := map[string]queue.Endpoint{}
	for _, e := range m.Endpoints {
		named[e.APIName] = e
	}
	for name, want := range map[string]int{"default": 3, "four": 4, "two": 2, "any": 0, "hold": 1} {
		if got := named[name]; got.Limit != want {
			t.Errorf("%s: limit %d, want %d", name, got.Limit, want)
		}
	}
	if named["four"].Group != "shared" || named["two"].Group != "shared" || named["hold"].Native || !named["default"].Native {
		t.Errorf("got %+v", named)
	}
	t.Run("what the Space admits", func(t *testing.T) { w.testFlood(t, named) })
	t.Run("a rebuilt config", func(t *testing.T) {
		before, _ := w.queue.Manifest()
		w.call(t, "relabel", named)
		eventually(t, "the host has received it", func() bool { m, _ := w.queue.Manifest(); return m.Revision > before.Revision })
	})
}

// testFlood passes visitors through to the Space's own join route, as if all had been admitted before the first was
// reported.
func (w *world) testFlood(t *testing.T, named map[string]queue.Endpoint) {
	_, key, _ := w.Upstream()
	port := w.serverPort()
	for i := range 4 {
		call, end := w.queue.Direct(identity.Identity{Kind: identity.User, Name: "ada"}, false)
		body := fmt.Sprintf(`{"data":["x"],"fn_index":%d,"session_hash":"s%d"}`, named["hold"].ID, i)
		status, text := askPort(t, port, "POST", "/gradio_api/queue/join", key, []byte(body), "X-Spacehost-Call: "+string(call))
		if status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		eventually(t, "the host has received it", func() bool { return w.queue.Session(queue.SessionHash(fmt.Sprint("s", i))) != nil })
		end()
	}
	for _, session := range []queue.SessionHash{"s2", "s3"} { // s0 runs, s1 waits
		messages := w.receive(t, session, "")
		if first := messages[0]; first.Failure == nil || first.Failure.Text != "Queue is full. Max size is 1 and size is 1." {
			t.Errorf("%s received %+v", session, messages)
		}
	}
	if status, text := askPort(t, port, "POST", "/gradio_api/run/release", key, []byte(`{"data":[]}`)); status != 200 { // the full queue would reject it
		t.Fatalf("release: %d %s", status, text)
	}
	for _, session := range []queue.SessionHash{"s0", "s1"} {
		messages := w.receive(t, session, "")
		if last := messages[len(messages)-2]; last.Kind != queue.Completed || !last.Success {
			t.Errorf("%s received %s", session, kinds(messages))
		}
	}
}

// call makes a call and waits for its end.
func (w *world) call(t *testing.T, name string, named map[string]queue.Endpoint) {
	t.Helper()
	session := queue.SessionHash("calls " + name)
	body := fmt.Sprintf(`{"data":[],"fn_index":%d,"session_hash":%q}`, named[name].ID, session)
	event := &queue.Event{ID: queue.NewEventID(), Session: session, Endpoint: named[name], Body: []byte(body),
		Request: queue.Request{Path: "/gradio_api/queue/join", Scheme: "http", Client: "127.0.0.1", Headers: [][2]string{{"host", "localhost"}}}}
	if err := w.queue.Join(event); err != nil {
		t.Fatal(err)
	}
	if messages := w.receive(t, session, ""); !messages[len(messages)-2].Success {
		t.Errorf("%s: received %+v", name, messages)
	}
}
