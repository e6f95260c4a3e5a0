package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/queue"
)

// app is a Space in a real interpreter. The test plays the queue.
type app struct {
	p        *Process
	r        *recorder
	gradio   string
	number   int // number of the attached app in frames
	manifest queue.Manifest
}

// attached waits for the manifest of that number.
func (a *app) attached(t *testing.T, number int) {
	t.Helper()
	m := a.r.await(t, fmt.Sprintf("manifest %d", number), func(one recorded) bool {
		a.stillRuns(t)
		return one.Op == "manifest" && one.App == number
	})
	manifest, err := m.manifestOf()
	if err != nil {
		t.Fatal(err)
	}
	a.number, a.manifest = number, manifest
}

func (a *app) stillRuns(t *testing.T) {
	t.Helper()
	select {
	case <-a.p.Done():
		t.Fatalf("the app has ended: %v", a.p.Err())
	default:
	}
}

func (a *app) endpoint(t *testing.T, name string) queue.Endpoint {
	t.Helper()
	for _, e := range a.manifest.Endpoints {
		if e.APIName == name {
			return e
		}
	}
	t.Fatalf("no endpoint %s in %+v", name, a.manifest.Endpoints)
	return queue.Endpoint{}
}

// body returns what a client posts to /queue/join.
func (a *app) body(t *testing.T, name, session string, data ...any) []byte {
	t.Helper()
	if data == nil {
		data = []any{}
	}
	body, err := json.Marshal(map[string]any{"data": data, "fn_index": a.endpoint(t, name).ID, "session_hash": session, "event_data": nil, "trigger_id": nil})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var visitorRequest = queue.Request{
	Headers: [][2]string{{"host", "space.example"}, {"x-latin", "Ã©"}, {"cookie", "a=1"}, {"X-Twice", "1"}, {"x-twice", "2"}, {"x-forwarded-proto", "https"}},
	Path:    "/queue/join", Query: "a=b&c=%20", Scheme: "https", Client: "203.0.113.9",
}

// start sends the app one Job, with an event for each body.
func (a *app) start(bodies ...[]byte) (ids []queue.EventID) {
	job, request := queue.Job{App: a.number}, visitorRequest
	request.Path = a.manifest.Prefix + request.Path
	for _, body := range bodies {
		id := queue.NewEventID()
		ids = append(ids, id)
		job.Events = append(job.Events, queue.Event{ID: id, Body: body, Token: "token-" + string(id), Request: request})
	}
	a.p.Send(startFrame(job))
	return ids
}

// finish waits for the event's end, and returns its messages and its done report.
func (a *app) finish(t *testing.T, id queue.EventID) (messages []recorded, end recorded) {
	t.Helper()
	end = a.r.await(t, "the event is done", func(one recorded) bool {
		a.stillRuns(t)
		return one.Op == "done" && one.Event == id
	})
	return a.messages(id), end
}

func (a *app) messages(id queue.EventID) (messages []recorded) {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	for _, one := range a.r.reports {
		if one.Op == "message" && one.Event == id {
			messages = append(messages, one)
		}
	}
	return messages
}

// awaitMessage waits for the event's first message of a kind.
func (a *app) awaitMessage(t *testing.T, id queue.EventID, kind queue.Kind) recorded {
	t.Helper()
	return a.r.await(t, string(kind), func(one recorded) bool {
		a.stillRuns(t)
		return one.Op == "message" && one.Event == id && one.Msg == kind
	})
}

// call runs one event natively to its end.
func (a *app) call(t *testing.T, name string, data ...any) ([]recorded, recorded) {
	t.Helper()
	return a.finish(t, a.start(a.body(t, name, "session-"+name, data...))[0])
}

// result returns the first datum of a call's output.
func (a *app) result(t *testing.T, name string, data ...any) any {
	t.Helper()
	messages, end := a.call(t, name, data...)
	return datum(t, messages, end)
}

func datum(t *testing.T, messages []recorded, end recorded) any {
	t.Helper()
	var result struct{ Output struct{ Data []any } }
	if len(messages) == 0 || end.Error != "" {
		t.Fatalf("got %d messages, done with %q", len(messages), end.Error)
	}
	last := messages[len(messages)-1]
	if err := json.Unmarshal([]byte(last.Payload), &result); err != nil || last.Msg != queue.Completed || last.Success == nil || !*last.Success || len(result.Output.Data) == 0 {
		t.Fatalf("it ended with %s: %s", last.Msg, last.Payload)
	}
	return result.Output.Data[0]
}

func kindsOf(messages []recorded) string {
	var words []string
	for _, m := range messages {
		words = append(words, string(m.Msg))
	}
	return strings.Join(words, " ")
}

// field looks up a value in a message's JSON: field(m, "output", "error").
func field(t *testing.T, m recorded, path ...string) any {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(m.Payload), &value); err != nil {
		t.Fatalf("%s: %v", m.Payload, err)
	}
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}

// ask sends an HTTP request to the Space's own port. A key of "" is left out.
func (a *app) ask(t *testing.T, method, path, key string, body []byte, headers ...string) (int, string) {
	t.Helper()
	return askPort(t, a.manifest.Port, method, path, key, body, headers...)
}

func askPort(t *testing.T, port int, method, path, key string, body []byte, headers ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("X-Spacehost-Key", key)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	client := http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// devices is a device API that grants every request at once.
type devices struct {
	*httptest.Server
	mu      sync.Mutex
	allowed map[int]proctree.Stat // pid -> its state at the time of the request
	calls   []string
}

func newDevices(t *testing.T) *devices {
	d := &devices{allowed: map[int]proctree.Stat{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		call := strings.TrimPrefix(r.URL.Path, "/d/door/")
		d.calls = append(d.calls, call)
		switch call {
		case "schedule":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"idle":false,"nvidiaIndex":0,"nvidiaUUID":"GPU-0123","allowToken":"allow"}`)
		case "allow":
			pid, _ := strconv.Atoi(r.URL.Query().Get("pid"))
			d.allowed[pid], _ = proctree.ReadStat(pid)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *devices) port() int { return d.Listener.Addr().(*net.TCPAddr).Port }

// printedFacts parses the JSON after a word that the app printed.
func (a *app) printedFacts(t *testing.T, what string) (facts map[string]any) {
	t.Helper()
	line := a.r.awaitLine(t, a.p, what+" {")
	if err := json.Unmarshal([]byte("{"+line), &facts); err != nil {
		t.Fatal(err)
	}
	return facts
}

// listening returns the TCP ports at which a process listens.
func listening(t *testing.T, pid int) (ports []int) {
	t.Helper()
	inodes := map[string]bool{}
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, link.Name()))
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table)) // tcp6 may be missing
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == "0A" && inodes[fields[9]] {
				_, hex, _ := strings.Cut(fields[1], ":")
				port, _ := strconv.ParseInt(hex, 16, 32)
				ports = append(ports, int(port))
			}
		}
	}
	return ports
}

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
		c.Device = gpus.port()
		c.Secrets = map[string]string{"SPACES_ZERO_DEVICE_API_URL": gpus.URL + "/d/door"}
		c.Env = append(c.Env, "SPACES_ZERO_GPU=true", "CUDA_VISIBLE_DEVICES=")
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
	t.Run("further demos", a.testDemos)
	t.Run("relaunch", a.testRelaunch)
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
		"gen":       {Limit: 0, Inputs: 1, Native: true},
		"endless":   {Limit: 3, Inputs: 1, Native: true},
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
		"url": a.p.config.Public, "local_url": a.p.config.Public, "share": nil, "port": float64(a.p.config.Port), "name": "127.0.0.1",
	}
	if !reflect.DeepEqual(facts, want) {
		t.Errorf("got %v, want %v", facts, want)
	}
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

func (a *app) cancel(id queue.EventID) { a.p.Send(newFrame(cancelOrder{"cancel", a.number, id}, nil)) }

func (a *app) gone(ids ...queue.EventID) { a.p.Send(newFrame(goneOrder{"gone", a.number, ids}, nil)) }

func (a *app) testCancel(t *testing.T) {
	t.Run("generator", func(t *testing.T) {
		id := a.start(a.body(t, "endless", "s", "one"))[0]
		other := a.start(a.body(t, "endless", "s", "two"))[0] // same function, same session: Gradio would cancel it too
		a.awaitMessage(t, id, queue.Generating)
		a.awaitMessage(t, other, queue.Generating)
		a.cancel(id)
		messages, end := a.finish(t, id)
		if end.Error != "cancelled" || strings.Contains(kindsOf(messages), "process_completed") {
			t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
		}
		if facts := a.printedFacts(t, "closed"); facts["mark"] != "one" {
			t.Errorf("closed %v", facts)
		}
		seen := len(a.messages(other))
		eventually(t, "the other continues", func() bool { return len(a.messages(other)) > seen })
		a.cancel(other)
		a.finish(t, other)
	})
	t.Run("async function", func(t *testing.T) {
		id := a.start(a.body(t, "hang", "s", "three"))[0]
		a.awaitMessage(t, id, "process_starts")
		a.cancel(id)
		if _, end := a.finish(t, id); end.Error != "cancelled" {
			t.Errorf("done with %q", end.Error)
		}
		if facts := a.printedFacts(t, "cancelled"); facts["mark"] != "three" {
			t.Errorf("cancelled %v", facts)
		}
	})
	t.Run("sync function", func(t *testing.T) {
		id := a.start(a.body(t, "stuck", "s", "four"))[0]
		a.awaitMessage(t, id, "process_starts")
		a.cancel(id)
		if messages, end := a.finish(t, id); end.Error != "cancelled" || kindsOf(messages) != "process_starts" {
			t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
		}
		a.call(t, "release")
	})
	t.Run("at once", func(t *testing.T) { // before the task's first step: still one end, and nothing is left
		for range 20 {
			id := a.start(a.body(t, "hang", "s", "five"))[0]
			a.cancel(id)
			if _, end := a.finish(t, id); end.Error != "cancelled" {
				t.Errorf("done with %q", end.Error)
			}
		}
	})
	t.Run("one of a batch", func(t *testing.T) {
		ids := a.start(a.body(t, "batch", "s", "a"), a.body(t, "batch", "s", "b"))
		a.cancel(ids[0])
		messages, end := a.finish(t, ids[1])
		if got := datum(t, messages, end); got != "2 b" && got != "1 b" {
			t.Errorf("got %v", got)
		}
		a.finish(t, ids[0])
	})
	t.Run("unknown events", func(t *testing.T) {
		a.cancel("0123456789abcdef0123456789abcdef")
		a.gone("0123456789abcdef0123456789abcdef")
		if got := a.result(t, "quick", "still here"); got != "you said still here" {
			t.Errorf("got %v", got)
		}
	})
}

func (a *app) testGone(t *testing.T) {
	id := a.start(a.body(t, "endless", "leaver", "gone"))[0]
	a.awaitMessage(t, id, queue.Generating)
	a.gone(id)
	if messages, end := a.finish(t, id); end.Error != "" || strings.Contains(kindsOf(messages), "process_completed") {
		t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
	}
	eventually(t, "its generator is closed", func() bool {
		return slices.Contains(a.r.printed(), `closed {"mark": "gone"}`)
	})
}

// A message after process_completed or done is a breach, which would end the Space.
func (a *app) testNothingFollows(t *testing.T) {
	for _, name := range []string{"late_progress", "late_toast"} {
		for range 5 {
			id := a.start(a.body(t, name, "s", "late"))[0]
			a.finish(t, id)
		}
	}
	a.result(t, "quick", "afterwards")
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	ended := map[queue.EventID]string{}
	for _, one := range a.r.reports {
		if how := ended[one.Event]; how == "done" || how != "" && one.Op != "done" {
			t.Errorf("%s %s after %s of %s: %s", one.Op, one.Msg, how, one.Event, one.Payload)
		}
		if one.Msg == queue.Completed || one.Op == "done" {
			ended[one.Event] = one.Op
		}
	}
}

// join posts to the Space's own route, as the host does for events that only the Space can admit.
func (a *app) join(t *testing.T, name, session string, data ...any) (status int, answer map[string]any) {
	t.Helper()
	call := queue.NewEventID()
	status, text := a.ask(t, "POST", a.manifest.Prefix+"/queue/join", "key", a.body(t, name, session, data...),
		"X-Spacehost-Call: "+string(call), "X-Ip-Token: of-the-host", "X-Forwarded-For: 203.0.113.9")
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	answer["call"] = string(call)
	return status, answer
}

// admit joins, and returns the report of the Space.
func (a *app) admit(t *testing.T, name, session string, data ...any) recorded {
	t.Helper()
	status, answer := a.join(t, name, session, data...)
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	admitted := a.r.await(t, "the event is admitted", func(one recorded) bool { return one.Op == "admitted" && string(one.Event) == answer["event_id"] })
	if want := a.endpoint(t, name); admitted.App != a.number || string(admitted.Session) != session || string(admitted.Call) != answer["call"] ||
		admitted.Endpoint.ID != want.ID || admitted.Endpoint.Group != want.Group {
		t.Errorf("%s: got %+v", name, admitted.report)
	}
	return admitted
}

func (a *app) startAdmitted(id queue.EventID) {
	a.p.Send(startFrame(queue.Job{App: a.number, Events: []queue.Event{{ID: id, Admitted: true, Token: "token-" + string(id)}}}))
}

func (a *app) testAdmission(t *testing.T) {
	t.Run("a validator", func(t *testing.T) {
		if !a.hasValidators() {
			t.Skip("Gradio 4 has no validators")
		}
		status, answer := a.join(t, "validated", "s", -1)
		if text := fmt.Sprint(answer["detail"]); status != 422 || !strings.Contains(text, "not positive") {
			t.Errorf("%d %v", status, answer)
		}
		admitted := a.admit(t, "validated", "s", 21)
		if admitted.Cached || admitted.Endpoint.Limit == nil || *admitted.Endpoint.Limit != 5 || admitted.Endpoint.Native {
			t.Errorf("got %+v of %+v", admitted.Endpoint, admitted.report)
		}
		if early := a.messages(admitted.Event); len(early) != 0 {
			t.Errorf("it sent %s before its start", kindsOf(early))
		}
		a.startAdmitted(admitted.Event)
		messages, end := a.finish(t, admitted.Event)
		if got := datum(t, messages, end); got != 42.0 || kindsOf(messages) != "process_starts process_completed" {
			t.Errorf("got %v of %s", got, kindsOf(messages))
		}
	})
	t.Run("no header of the host", func(t *testing.T) {
		id := a.admit(t, "whoami", "the-session").Event
		a.startAdmitted(id)
		messages, end := a.finish(t, id)
		seen := datum(t, messages, end).(map[string]any)
		headers := fmt.Sprint(seen["headers"])
		if strings.Contains(headers, "spacehost") || strings.Count(headers, "x-ip-token") != 1 || !strings.Contains(headers, "[x-ip-token token-"+string(id)+"]") {
			t.Errorf("it sees %s", headers)
		}
		if !reflect.DeepEqual(seen["client"], []any{"203.0.113.9", 0.0}) {
			t.Errorf("its client is %v", seen["client"])
		}
	})
	t.Run("a cache", func(t *testing.T) {
		a.needsCache(t)
		for n, wantCached := range []bool{false, true, true} {
			admitted := a.admit(t, "cached", "s", 7)
			if admitted.Cached != wantCached {
				t.Fatalf("call %d: cached %v", n, admitted.Cached)
			}
			if !admitted.Cached {
				a.startAdmitted(admitted.Event)
			}
			messages, end := a.finish(t, admitted.Event)
			if got := datum(t, messages, end); got != 21.0 {
				t.Errorf("call %d: got %v", n, got)
			}
			if used := field(t, messages[len(messages)-1], "used_cache"); wantCached != (used == "full") {
				t.Errorf("call %d: used_cache %v", n, used)
			}
		}
		if calls := a.result(t, "calls"); !reflect.DeepEqual(calls, []any{7.0}) {
			t.Errorf("it ran for %v", calls)
		}
	})
	t.Run("a cached generator", func(t *testing.T) {
		a.needsCache(t)
		for n, want := range []string{"process_starts process_generating process_generating process_completed", "process_generating process_generating process_completed"} {
			admitted := a.admit(t, "cached_gen", "s", 5)
			if !admitted.Cached {
				a.startAdmitted(admitted.Event)
			}
			if messages, _ := a.finish(t, admitted.Event); kindsOf(messages) != want || admitted.Cached != (n == 1) {
				t.Errorf("call %d: got %s, cached %v", n, kindsOf(messages), admitted.Cached)
			}
		}
	})
	t.Run("cancelled while it waits", func(t *testing.T) {
		for n, end := range []func(queue.EventID){a.cancel, func(id queue.EventID) { a.gone(id) }} {
			id := a.admit(t, "quick", "waiter", "x").Event
			end(id)
			a.startAdmitted(id) // too late: the event is unknown
			if messages, end := a.finish(t, id); len(messages) != 0 || !strings.Contains(end.Error, "no longer has this call") {
				t.Errorf("%d: got %s, done with %q", n, kindsOf(messages), end.Error)
			}
		}
	})
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
	processes.Register("test", a.p.tree)
	start, ok := processes.Owns("test", pid)
	if !ok || !processes.End(pid, start, 0) {
		t.Errorf("Owns: %v", ok)
	}
	if got := a.result(t, "gpu", "again").(map[string]any); int(got["pid"].(float64)) == pid { // the Space keeps running
		t.Errorf("worker %d is still running", pid)
	}
}

func (a *app) testFork(t *testing.T) {
	got := a.result(t, "fork")
	want := map[string]any{
		"sockets": map[string]any{
			"to the device API": "/dev/null", "to another server": "socket", "other server": "socket",
			"to the Space's own port": "socket", "pair": "socket", "pipe": "pipe",
		},
		"sockets of the Space's port": []any{}, "channel": "/dev/null", "channel of the parent": "socket", "group is the parent's": true,
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
	if facts["url"] != a.p.config.Public || facts["local_url"] != a.p.config.Public || int(facts["port"].(float64)) != a.manifest.Port {
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
