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
	"strconv"
	"strings"
	"sync"
	"testing"

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

// serve makes d the device API of a start.
func (d *devices) serve(c *ProcessConfig) {
	c.Device = d.Listener.Addr().(*net.TCPAddr).Port
	c.Secrets = map[string]string{"SPACES_ZERO_DEVICE_API_URL": d.URL + "/d/door"}
	c.Env = append(c.Env, "SPACES_ZERO_GPU=true", "CUDA_VISIBLE_DEVICES=")
}

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
