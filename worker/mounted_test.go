package worker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/space"
	"spacehost/queue"
)

// TestMountedApp runs a real app under a Supervisor and its Queue. The app is mounted below FastAPI, so the Space
// admits each call.
func TestMountedApp(t *testing.T) {
	for line := range gradios {
		t.Run(line, func(t *testing.T) { testMountedApp(t, line) })
	}
}

func testMountedApp(t *testing.T, line string) {
	python, prefix := testPythonOf(t, line), "/gradio_api"
	if line == "v4" {
		prefix = ""
	}
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	w := prepareWorld(t, func(c *SupervisorConfig) {
		local(c).Dir, c.Liveness = appDir(t, "mounted"), func() Liveness { return Liveness{After: 5 * time.Second} }
	})
	w.Prepare(python, runnerDir, pythonEnv(t, python))
	w.run(t)
	within(t, 3*patient, "the app is up", w.Ready())
	m, _ := w.queue.Manifest()
	if m.Mount != "/inner" || m.Prefix != prefix || m.Native || m.PassThrough || len(m.Endpoints) != 1 || m.Gradio != gradios[line] {
		t.Errorf("got %+v", m)
	}
	_, key, _ := w.Upstream()
	port := w.serverPort()
	eventually(t, "it listens", func() bool { return len(listening(t, w.Status().PID)) > 0 })
	if got := listening(t, w.Status().PID); !slices.Equal(got, []int{port}) { // not at the Hub's port, which belongs to the host
		t.Errorf("it listens at %v, want %d", got, port)
	}
	for _, path := range []string{"/hello", "/inner/config", "/inner" + prefix + "/startup-events"} {
		if status, _ := askPort(t, port, "GET", path, "", nil); status != http.StatusForbidden {
			t.Errorf("%s without the key: %d", path, status)
		}
	}
	if status, text := askPort(t, port, "GET", "/hello", key, nil, "X-Spacehost-Call: 1"); status != 200 || text != `{"hello":"from FastAPI","headers":[]}` {
		t.Errorf("%d %s", status, text)
	}
	t.Run("a call", func(t *testing.T) { w.testMountedCall(t, port, key, "/inner"+prefix+"/queue/join") })
	t.Run("its loop answers probes", func(t *testing.T) {
		_, h := w.process()
		eventually(t, "two answers", func() bool {
			h.answers.mu.Lock()
			defer h.answers.mu.Unlock()
			return h.answers.liveness.loop.last >= 2 && h.answers.liveness.server == "runs"
		})
	})
	t.Run("its exit", w.testExit)
}

func (w *world) testMountedCall(t *testing.T, port int, key, path string) {
	call, end := w.queue.Direct(identity.Identity{Kind: identity.User, Name: "ada"}, false)
	defer end()
	status, text := askPort(t, port, "POST", path, key, []byte(`{"data":["hi"],"fn_index":0,"session_hash":"s"}`), "X-Spacehost-Call: "+string(call))
	var answer struct {
		Event queue.EventID `json:"event_id"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	messages := w.receive(t, "s", "")
	var result struct {
		Output struct {
			Data []struct {
				Text, Path string
				Headers    map[string]string
			}
		}
	}
	last := messages[len(messages)-2]
	if err := json.Unmarshal(last.Raw, &result); err != nil || last.Kind != queue.Completed || len(result.Output.Data) != 1 {
		t.Fatalf("got %s: %+v", last.Raw, messages)
	}
	got := result.Output.Data[0]
	if got.Text != "hi" || got.Path != path || got.Headers["x-ip-token"] != "token-"+string(answer.Event) {
		t.Errorf("got %+v", got)
	}
	if strings.Contains(fmt.Sprint(got.Headers), "spacehost") {
		t.Errorf("it sees the host's headers: %v", got.Headers)
	}
	w.note(func() {
		if payer := w.payers[answer.Event]; payer != "user:ada" {
			t.Errorf("%s pays", payer)
		}
	})
}

// testExit checks that Run returns without an error and that the Space is STOPPED.
func (w *world) testExit(t *testing.T) {
	w.stop()
	if err := within(t, patient, "Run returns", w.ended); err != nil {
		t.Error(err)
	}
	if got := w.Status(); got.Stage != space.Stopped {
		t.Errorf("status %+v", got)
	}
}
