package worker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/queue"
)

// TestEverything drives one app through all functions of a runner, on each line of Gradio.
func TestEverything(t *testing.T) {
	for line := range gradios {
		t.Run(line, func(t *testing.T) { testEverything(t, line) })
	}
}

// testEverything has parts that depend on the previous parts.
func testEverything(t *testing.T, line string) {
	gpus := newDevices(t)
	a := &app{gradio: gradios[line]}
	a.p, a.r = startAppOn(t, testPythonOf(t, line), "everything", func(c *ProcessConfig) {
		gpus.serve(c)
		c.Public = "http://space.example:7860/"
	})
	t.Run("startup events pass while it launches", a.testLaunching)
	a.attached(t, 0)
	t.Run("manifest", a.testManifest)
	t.Run("launch gives the public address", a.testLaunch)
	t.Run("guard", a.testGuard)
	t.Run("messages", a.testMessages)
	t.Run("request", a.testRequest)
	t.Run("batch", a.testBatch)
	t.Run("cancel", a.testCancel)
	t.Run("gone", a.testGone)
	t.Run("nothing follows the end", a.testNothingFollows)
	t.Run("admitted by the Space", a.testAdmission)
	t.Run("gpu worker", func(t *testing.T) { a.testGPU(t, gpus) })
	t.Run("forked child", a.testFork)
	t.Run("nothing is left of thirty events", a.testTables)
	t.Run("probe", func(t *testing.T) { a.testProbe(t, 1) })
	t.Run("further demos", a.testDemos)
	t.Run("relaunch", a.testRelaunch)
	t.Run("probe after a relaunch", func(t *testing.T) { a.testProbe(t, 2) })
	t.Run("it listens nowhere else", a.testListening)
	t.Run("end", func(t *testing.T) {
		a.start(a.body(t, "deed", "session-end", "end")) // whether its "done" still arrives is a race
		within(t, patient, "it ends", a.p.Done())
		if a.p.Err().Error() != "it exited with code 4" {
			t.Error(a.p.Err())
		}
	})
}

// Before the manifest the port is guarded too, except for Gradio's checks of itself. These checks end soon. A
// request in that time is answered, or refused with 403.
func (a *app) testLaunching(t *testing.T) {
	eventually(t, "it listens", func() bool { a.stillRuns(t); return slices.Contains(listening(t, a.p.PID), a.p.config.Port) })
	if status, body := askPort(t, a.p.config.Port, "GET", "/config", "", nil); status != 403 {
		t.Errorf("GET /config: %d %s", status, body)
	}
}

func (a *app) testManifest(t *testing.T) {
	m := a.manifest
	if m.Gradio != a.gradio || m.Prefix != a.prefix() || m.Mount != "" || m.Port != a.p.config.Port || m.MaxSize == nil || *m.MaxSize != 30 ||
		m.LiveUpdates || m.UpdateEvery != 2500*time.Millisecond || m.MaxThreads != 17 || !m.Native || len(m.Endpoints) != 24 {
		t.Errorf("got %+v", m)
	}
	quick, shared := a.endpoint(t, "quick"), a.endpoint(t, "hang").Group
	for name, want := range map[string]queue.Endpoint{
		"quick":     {Limit: 5, Inputs: 1, Native: true},
		"gen":       {Limit: 0, Inputs: 1, Native: true, Generator: true},
		"endless":   {Limit: 3, Inputs: 1, Native: true, Generator: true},
		"hang":      {Limit: 3, Inputs: 1, Native: true, Group: "shared"},
		"stuck":     {Limit: 5, Inputs: 1, Native: true, Group: "shared"},
		"batch":     {Limit: 5, Inputs: 1, Native: true, Batch: 4},
		"validated": {Limit: 5, Inputs: 1, Native: !a.hasValidators()},
		"cached":    {Limit: 5, Inputs: 1, Native: !a.hasCache()},
		"gpu":       {Limit: 5, Inputs: 1, Native: true},
		"fork":      {Limit: 5, Native: true},
	} {
		got := a.endpoint(t, name)
		want.ID, want.APIName = got.ID, name
		if want.Group == "" {
			want.Group = got.Group // the address of its function
			if got.Group == "" || got.Group == shared || name != "quick" && got.Group == quick.Group {
				t.Errorf("%s is in group %q", name, got.Group)
			}
		}
		want.Free, want.Explores = []int{}, []int{}
		for i := range want.Inputs { // all are plain texts and numbers
			want.Free = append(want.Free, i)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func (a *app) testLaunch(t *testing.T) {
	facts := a.printedFacts(t, "launched")
	want := map[string]any{
		"url": a.p.config.Public, "local_url": a.p.config.Public, "share": nil, "port": float64(a.p.config.Port), "name": "127.0.0.1", "api_url": a.apiURL(),
	}
	if !reflect.DeepEqual(facts, want) {
		t.Errorf("got %v, want %v", facts, want)
	}
}

// apiURL is the address of Gradio's API for an app that calls itself. Gradio 4 has no such attribute.
func (a *app) apiURL() any {
	if a.manifest.Prefix == "" {
		return nil
	}
	return strings.TrimSuffix(a.p.config.Public, "/") + a.manifest.Prefix + "/"
}

func (a *app) testGuard(t *testing.T) {
	for _, row := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/config", "", 403}, {"GET", "/config", "wrong", 403}, {"GET", "/config", "keykey", 403}, {"GET", "/config", "key", 200},
		{"HEAD", "/", "", 403}, {"HEAD", "/", "key", 200}, {"GET", a.prefix() + "/startup-events", "", 403},
		{"GET", "/", "", 403}, {"GET", "/", "key", 200}, {"GET", "/no/such/path", "", 403}, {"POST", a.prefix() + "/queue/join", "", 403},
	} {
		status, body := a.ask(t, row.method, row.path, row.key, nil)
		if status != row.status {
			t.Errorf("%s %s with key %q: %d %.200s, want %d", row.method, row.path, row.key, status, body, row.status)
		}
		if status == 403 && row.method != "HEAD" && !strings.Contains(body, "belongs to spacehost") {
			t.Errorf("%s %s: %s", row.method, row.path, body)
		}
	}
}

func (a *app) testMessages(t *testing.T) {
	t.Run("quick", func(t *testing.T) {
		messages, end := a.call(t, "quick", "größe\r\n")
		if got := kindsOf(messages); got != "process_starts process_completed" {
			t.Errorf("got %s", got)
		}
		if got := datum(t, messages, end); got != "you said größe\r\n" {
			t.Errorf("got %q", got)
		}
		for _, m := range messages {
			if field(t, m, "event_id") != string(m.Event) || field(t, m, "msg") != string(m.Msg) || strings.ContainsAny(m.Payload, "\r\n") {
				t.Errorf("got %s", m.Payload)
			}
		}
		if end.Average == nil || *end.Average <= 0 {
			t.Errorf("average %v", end.Average)
		}
	})
	t.Run("generator", func(t *testing.T) {
		messages, end := a.call(t, "gen", 3)
		if got := kindsOf(messages); got != "process_starts process_generating process_generating process_generating process_completed" || end.Error != "" {
			t.Errorf("got %s, done with %q", got, end.Error)
		}
	})
	for name, row := range a.failures() {
		t.Run(name, func(t *testing.T) {
			messages, end := a.call(t, name, "it broke")
			last := messages[len(messages)-1]
			if got := kindsOf(messages); got != "process_starts process_completed" || *last.Success || end.Error != "" {
				t.Errorf("got %s, done with %q", got, end.Error)
			}
			if field(t, last, "output", "error") != row.text || field(t, last, "title") != row.title {
				t.Errorf("got %s", last.Payload)
			}
		})
	}
	t.Run("progress", func(t *testing.T) {
		messages, end := a.call(t, "progress", "halfway")
		got := kindsOf(messages)
		if !strings.HasPrefix(got, "process_starts progress") || !strings.HasSuffix(got, "process_completed") || end.Error != "" {
			t.Errorf("got %s, done with %q", got, end.Error)
		}
		if !strings.Contains(messages[1].Payload, "halfway") {
			t.Errorf("got %s", messages[1].Payload)
		}
	})
	t.Run("toasts", func(t *testing.T) {
		messages, _ := a.call(t, "toasts", "careful")
		if got := kindsOf(messages); got != "process_starts log log process_completed" {
			t.Fatalf("got %s", got)
		}
		if field(t, messages[1], "level") != "info" || field(t, messages[2], "level") != "warning" || field(t, messages[2], "log") != "careful" {
			t.Errorf("got %s and %s", messages[1].Payload, messages[2].Payload)
		}
	})
	t.Run("state is kept in the session", func(t *testing.T) {
		for want := 1.0; want < 3; want++ {
			messages, end := a.call(t, "count", nil)
			var result struct{ Output struct{ Data []any } }
			_ = json.Unmarshal([]byte(messages[len(messages)-1].Payload), &result)
			if len(result.Output.Data) != 2 || result.Output.Data[1] != want || end.Error != "" {
				t.Errorf("got %v, want %g", result.Output.Data, want)
			}
		}
	})
	t.Run("invalid bodies", func(t *testing.T) {
		for name, row := range map[string]struct{ body, reason string }{
			"not JSON":    {"{", "JSONDecodeError"},
			"no data":     {`{"fn_index":0}`, "ValidationError"},
			"no function": {`{"data":[],"fn_index":4000,"session_hash":"s"}`, ""},
		} {
			messages, end := a.finish(t, a.start([]byte(row.body))[0])
			if len(messages) != 0 || end.Error == "" || !strings.HasPrefix(end.Error, row.reason) {
				t.Errorf("%s: %d messages, ends with %q", name, len(messages), end.Error)
			}
		}
	})
}

// The function receives the visitor's request as if uvicorn had received it.
func (a *app) testRequest(t *testing.T) {
	id := a.start(a.body(t, "whoami", "the-session"))[0]
	messages, end := a.finish(t, id)
	got := datum(t, messages, end)
	want := map[string]any{
		"headers": []any{
			[]any{"cookie", "a=1"}, []any{"host", "space.example"}, []any{"x-forwarded-proto", "https"}, []any{"x-ip-token", "token-" + string(id)},
			[]any{"x-latin", "Ã©"}, []any{"x-twice", "1"}, []any{"x-twice", "2"},
		},
		"query": map[string]any{"a": "b", "c": " "}, "client": []any{"203.0.113.9", 0.0}, "session": "the-session",
		"path": a.prefix() + "/queue/join", "scheme": "https",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

func (a *app) testBatch(t *testing.T) {
	var bodies [][]byte
	for n := range 3 {
		bodies = append(bodies, a.body(t, "batch", fmt.Sprint("session", n), fmt.Sprint("text", n)))
	}
	for n, id := range a.start(bodies...) {
		messages, end := a.finish(t, id)
		if got := datum(t, messages, end); got != fmt.Sprint("3 text", n) || kindsOf(messages) != "process_starts process_completed" {
			t.Errorf("event %d: got %v of %s", n, got, kindsOf(messages))
		}
	}
	ids := a.start(bodies[0], []byte("{"), bodies[2]) // an invalid event does not fail the others
	if _, end := a.finish(t, ids[1]); !strings.HasPrefix(end.Error, "JSONDecodeError") {
		t.Errorf("done with %q", end.Error)
	}
	messages, end := a.finish(t, ids[2])
	if got := datum(t, messages, end); got != "2 text2" {
		t.Errorf("got %v", got)
	}
}

// failures are the messages of exceptions. Gradio 4 has no titles, and quotes a gr.Error.
func (a *app) failures() map[string]failure {
	if a.isV4() {
		return map[string]failure{"boom": {"it broke", nil}, "refuse": {"'it broke'", nil}}
	}
	return map[string]failure{"boom": {"it broke", "Error"}, "refuse": {"it broke", "No"}}
}

type failure struct{ text, title any }

func (a *app) isV4() bool { return strings.HasPrefix(a.gradio, "4.") }

// prefix is the path before the API's paths, from Gradio 5 on.
func (a *app) prefix() string {
	if a.isV4() {
		return ""
	}
	return "/gradio_api"
}

// Validators exist from Gradio 5 on.
func (a *app) hasValidators() bool { return !a.isV4() }

// gr.cache exists from Gradio 6 on.
func (a *app) hasCache() bool { return strings.HasPrefix(a.gradio, "6.") }

func (a *app) needsCache(t *testing.T) {
	if !a.hasCache() {
		t.Skip("Gradio 4 and 5 have no gr.cache")
	}
}

func (a *app) testGPU(t *testing.T, gpus *devices) {
	got := a.result(t, "gpu", "hello").(map[string]any)
	pid := int(got["pid"].(float64))
	gpus.mu.Lock()
	allowed, asked := gpus.allowed[pid]
	calls := fmt.Sprint(gpus.calls)
	gpus.mu.Unlock()
	if !asked || allowed.Group != pid {
		t.Errorf("worker %d called /allow (%v) as %+v: it did not lead a group yet", pid, asked, allowed)
	}
	if got["text"] != "hello" || int(got["group"].(float64)) != pid || int(got["parent's group"].(float64)) != a.p.PID || got["devices"] != "GPU-0123" {
		t.Errorf("got %v, runner %d", got, a.p.PID)
	}
	if calls != "[startup-report schedule allow release]" {
		t.Errorf("calls %s", calls)
	}
	processes := &proctree.Processes{}
	processes.Register("test", a.p.Instance, a.p.tree)
	_, start, ok := processes.FromInside(a.p.Instance, pid)
	if !ok || !processes.End(pid, start, 0) {
		t.Errorf("Owns: %v", ok)
	}
	if got := a.result(t, "gpu", "again").(map[string]any); int(got["pid"].(float64)) == pid { // the Space keeps running
		t.Errorf("worker %d is still running", pid)
	}
}

// testProbe checks that the thread and the event loop answer.
func (a *app) testProbe(t *testing.T, number int) {
	a.p.Send(newFrame(probeOrder{"probe", number}, nil))
	thread := a.r.await(t, "the answer of the thread", func(one recorded) bool { return one.Op == "alive" && one.Number == number && !one.Loop })
	a.r.await(t, "the answer of the loop", func(one recorded) bool { return one.Op == "alive" && one.Number == number && one.Loop })
	if thread.Server != "runs" || len(thread.Thread) != 16 {
		t.Errorf("got %q, %q", thread.Server, thread.Thread)
	}
}

func (a *app) testFork(t *testing.T) {
	got := a.result(t, "fork")
	want := map[string]any{
		"sockets": map[string]any{
			"to the device API": "/dev/null", "to another server": "socket", "other server": "socket",
			"to the Space's own port": "socket", "pair": "socket", "pipe": "pipe",
		},
		"sockets of the Space's port": []any{}, "channel and stacks": []any{"/dev/null", "/dev/null"}, "channel and stacks of the parent": []any{"socket", "/memfd"}, "group is the parent's": true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

func (a *app) testTables(t *testing.T) {
	sizes := a.result(t, "tables").(map[string]any)
	if n, _ := sizes["event_analytics"].(float64); n < 30 || n > 10_000 { // the history for /monitoring
		t.Errorf("a history of %v events", n)
	}
	delete(sizes, "event_analytics")
	want := map[string]any{ // some tables contain the call itself
		"event_ids_to_events": 1.0, "pending_event_ids_session": 1.0, "pending_messages_per_session": 0.0, "active_jobs": 1.0,
		"waiting": 0.0, "current_concurrency": 1.0, "start_times": 1.0, "iterators": 0.0, "iterators_to_reset": 0.0,
	}
	if !reflect.DeepEqual(sizes, want) {
		t.Errorf("\n got %v\nwant %v", sizes, want)
	}
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	ends := 0
	for _, one := range a.r.reports {
		if one.Op == "done" {
			ends++
		}
	}
	if ends < 30 {
		t.Errorf("only %d events came before", ends)
	}
}

// do runs an action on the main thread, and waits until it is done.
func (a *app) do(t *testing.T, action string) {
	t.Helper()
	a.call(t, "deed", action)
	a.r.awaitLine(t, a.p, fmt.Sprintf(`did {"name": %q}`, action))
}

func (a *app) testDemos(t *testing.T) {
	first := *a
	for n, demoAction := range []string{"auth", "dependency", "middleware"} {
		first.do(t, demoAction)
		demo := *a
		demo.attached(t, n+1)
		if m := demo.manifest; m.Native || m.Port == first.manifest.Port || len(m.Endpoints) != 1 {
			t.Errorf("%s: got %+v", demoAction, m)
		}
		if status, _ := demo.ask(t, "GET", "/config", "", nil); status != 403 {
			t.Errorf("%s: its port is open", demoAction)
		}
		if demoAction != "auth" {
			if status, _ := demo.ask(t, "GET", "/config", "key", nil); status != 200 {
				t.Errorf("%s: GET /config: %d", demoAction, status)
			}
			if got := demo.result(t, "echo", "hi"); got != "hi" {
				t.Errorf("%s: got %v", demoAction, got)
			}
		}
	}
	for demoAction, reason := range map[string]string{"unknown": "it has no Queue.update_intervals", "strange": "TypeError: "} {
		first.do(t, demoAction)
		unknown := a.r.await(t, demoAction, func(one recorded) bool { return one.Op == "unknown" && strings.HasPrefix(one.Reason, reason) })
		if unknown.Gradio != a.gradio || unknown.Port == first.manifest.Port || !isPort(unknown.Port) {
			t.Errorf("%s: got %+v", demoAction, unknown.report)
		}
		a.ownQueueWorks(t, unknown.Port)
	}
	first.do(t, "bad_launch")
	first.do(t, "read_app")
	want := map[string]any{"before": 0.0, "same": true, "after": 2.0, "blocks": true, "config": true, "routes": true, "direct": true}
	if facts := a.printedFacts(t, "read"); !reflect.DeepEqual(facts, want) {
		t.Errorf("demo.app before launch: got %v", facts)
	}
	if facts := a.printedFacts(t, "written"); facts["same"] != true {
		t.Error("demo.app is not what the app has set")
	}
	if facts := a.printedFacts(t, "refused"); facts["error"] != "Blocks.launch() got an unexpected keyword argument 'no_such_argument'" {
		t.Errorf("got %v", facts)
	}
}

// ownQueueWorks calls an app that keeps Gradio's own queue, as the host's pass-through does.
func (a *app) ownQueueWorks(t *testing.T, port int) {
	t.Helper()
	status, text := askPort(t, port, "POST", a.prefix()+"/queue/join", "key", []byte(`{"data":["hi"],"fn_index":0,"session_hash":"own"}`))
	if status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	status, text = askPort(t, port, "GET", a.prefix()+"/queue/data?session_hash=own", "key", nil)
	if status != 200 || !strings.Contains(text, "process_completed") || !strings.Contains(text, "hi") {
		t.Errorf("%d %s", status, text)
	}
}

func (a *app) testRelaunch(t *testing.T) {
	id := a.start(a.body(t, "hang", "s", "lost"))[0]
	a.awaitMessage(t, id, "process_starts")
	old := *a
	a.do(t, "relaunch")
	a.attached(t, 4)
	facts := a.printedFacts(t, "relaunched")
	if facts["url"] != a.p.config.Public || facts["local_url"] != a.p.config.Public || facts["api_url"] != a.apiURL() || int(facts["port"].(float64)) != a.manifest.Port {
		t.Errorf("got %v", facts)
	}
	if *a.manifest.MaxSize != 30 || !a.manifest.Native || len(a.manifest.Endpoints) != len(old.manifest.Endpoints) {
		t.Errorf("got %+v", a.manifest)
	}
	if got := a.result(t, "quick", "anew"); got != "you said anew" {
		t.Errorf("got %v", got)
	}
	a.finish(t, id) // calls on the old loop have ended with it
	if messages, end := old.call(t, "quick", "too late"); len(messages) != 0 || end.Error != "the app was closed" {
		t.Errorf("the old app sent %s, done with %q", kindsOf(messages), end.Error)
	}
	old.cancel(id)
	old.gone(id)
	if status, _ := a.ask(t, "GET", "/config", "", nil); status != 403 {
		t.Error("its port is open")
	}
	if got := a.result(t, "quick", "once more"); got != "you said once more" { // it still receives frames
		t.Errorf("got %v", got)
	}
}

// The host knows the port of each server from a report. With SYSTEM=spaces Gradio would have started another server,
// at 7887, which writes and runs code for any client.
func (a *app) testListening(t *testing.T) {
	if got := a.result(t, "hot_reload"); got != false {
		t.Errorf("the hot-reload server was started: %v", got)
	}
	var reported []int
	a.r.mu.Lock()
	for _, one := range a.r.reports {
		if one.Op == "manifest" || one.Op == "unknown" {
			reported = append(reported, one.Port)
		}
	}
	a.r.mu.Unlock()
	slices.Sort(reported)
	reported = slices.Compact(reported) // the relaunch reuses the port
	got := listening(t, a.p.PID)
	slices.Sort(got)
	if !slices.Equal(got, reported) || slices.Contains(got, 7887) || len(got) < 6 {
		t.Errorf("it listens at %v, reported %v", got, reported)
	}
}
