package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/queue"
)

const (
	eventA = queue.EventID("0123456789abcdef0123456789abcdef")
	eventB = queue.EventID("fedcba9876543210fedcba9876543210")
)

// newSession returns a session with a running Queue and without a process.
func newSession(t *testing.T) *session {
	t.Helper()
	s := NewSupervisor(SupervisorConfig{Account: func() identity.Identity { return identity.Identity{Kind: identity.Space, Name: "test"} }})
	q := queue.New(queue.Config{Runner: s, Sign: func(queue.Event) string { return "" }})
	s.SetQueue(q)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return &session{supervisor: s, answers: newAnswers()}
}

// with returns header with changes; a nil value removes a key.
func with(header map[string]any, changes map[string]any) map[string]any {
	header = maps.Clone(header)
	maps.Copy(header, changes)
	maps.DeleteFunc(header, func(_ string, value any) bool { return value == nil })
	return header
}

func message(event queue.EventID, msg string) sentFrame {
	return sentFrame{map[string]any{"op": "message", "event": event, "msg": msg}, `{}`}
}

func done(event queue.EventID) sentFrame {
	return sentFrame{Header: map[string]any{"op": "done", "event": event}}
}

// A real process sends the reports of each row, and is killed for it. eventA runs in this start, eventB does not.
func TestBreaches(t *testing.T) {
	manifest := sentFrame{Header: manifestHeader(0)}
	endpoint := map[string]any{"id": 0, "api_name": "do", "group": "g"}
	admittedB := map[string]any{"op": "admitted", "event": eventB, "session": "s", "endpoint": endpoint}
	completed := sentFrame{map[string]any{"op": "message", "event": eventA, "msg": "process_completed", "success": true}, `{}`}
	outOfBounds := func(changes map[string]any) []sentFrame {
		return []sentFrame{{Header: with(manifestHeader(0), changes)}}
	}
	badEndpoint := func(changes map[string]any) []sentFrame {
		return outOfBounds(map[string]any{"endpoints": []any{with(endpoint, changes)}})
	}
	for name, row := range map[string]struct {
		reason string
		sends  []sentFrame
	}{
		"unknown op":                   {`unknown report "dance"`, []sentFrame{{Header: map[string]any{"op": "dance"}}}},
		"no op":                        {`unknown report ""`, []sentFrame{{Header: map[string]any{}}}},
		"message of an unknown event":  {`"log" for an event that is not running`, []sentFrame{message(eventB, "log")}},
		"message of no event":          {`"log" for an event that is not running`, []sentFrame{message("", "log")}},
		"message after done":           {`"log" for an event that is not running`, []sentFrame{done(eventA), message(eventA, "log")}},
		"message after completed":      {`"log" for an event that is not running`, []sentFrame{completed, message(eventA, "log")}},
		"completed twice":              {`"process_completed" for an event that is not running`, []sentFrame{completed, completed}},
		"message of a waiting event":   {`"log" for an event that is not running`, []sentFrame{manifest, {Header: admittedB}, message(eventB, "log")}},
		"line feed":                    {`"log" with a line break`, []sentFrame{{message(eventA, "log").Header, "{}\n\ndata: {}"}}},
		"carriage return":              {`"log" with a line break`, []sentFrame{{message(eventA, "log").Header, "{}\r{}"}}},
		"done twice":                   {"done for an event that is not running", []sentFrame{done(eventA), done(eventA)}},
		"done of an unknown event":     {"done for an event that is not running", []sentFrame{done(eventB)}},
		"done of a waiting event":      {"done for an event that is not running", []sentFrame{manifest, {Header: admittedB}, done(eventB)}},
		"negative average":             {"average duration of -1 s", []sentFrame{{Header: map[string]any{"op": "done", "event": eventA, "average": -1}}}},
		"huge average":                 {"average duration of 1e+300 s", []sentFrame{{Header: map[string]any{"op": "done", "event": eventA, "average": 1e300}}}},
		"wrong first app":              {"manifest number 1 names app 1", []sentFrame{{Header: manifestHeader(1)}}},
		"app attached again":           {"manifest number 2 names app 0", []sentFrame{manifest, manifest}},
		"too many mounts":              {"more than 64 mounts", mounts(65)},
		"admitted by an unknown app":   {"admitted without manifest", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"app": 1})}}},
		"app left out":                 {"manifest number 2 names app 2", []sentFrame{manifest, {Header: manifestHeader(2)}}},
		"first launch in the future":   {"manifest number 1 names app 1 as its first launch", outOfBounds(map[string]any{"first": 1})},
		"server without a port":        {"server: port 0 is out of bounds", []sentFrame{{Header: map[string]any{"op": "server"}}}},
		"no threads":                   {"manifest out of bounds", outOfBounds(map[string]any{"max_threads": 0})},
		"many threads":                 {"manifest out of bounds", outOfBounds(map[string]any{"max_threads": maxThreads + 1})},
		"no port":                      {"manifest out of bounds", outOfBounds(map[string]any{"port": 0})},
		"port above":                   {"manifest out of bounds", outOfBounds(map[string]any{"port": 65536})},
		"negative updates":             {"manifest out of bounds", outOfBounds(map[string]any{"update_seconds": -0.1})},
		"updates every thousand years": {"manifest out of bounds", outOfBounds(map[string]any{"update_seconds": 3e10})},
		"negative size":                {"manifest out of bounds", outOfBounds(map[string]any{"max_size": -1})},
		"a word for a number":          {"header: json: cannot unmarshal string", outOfBounds(map[string]any{"port": "80"})},
		"negative limit":               {"endpoint 0 out of bounds", badEndpoint(map[string]any{"limit": -1})},
		"negative batch":               {"endpoint 0 out of bounds", badEndpoint(map[string]any{"batch": -1})},
		"negative inputs":              {"endpoint 0 out of bounds", badEndpoint(map[string]any{"inputs": -1})},
		"negative time limit":          {"endpoint 0 out of bounds", badEndpoint(map[string]any{"time_limit": -1})},
		"time limit out of range":      {"endpoint 0 out of bounds", badEndpoint(map[string]any{"time_limit": 1e308})},
		"unknown gradio, no port":      {"unknown gradio: port 0 is out of bounds", []sentFrame{{Header: map[string]any{"op": "unknown", "gradio": "9"}}}},
		"admitted before a manifest":   {"admitted without", []sentFrame{{Header: admittedB}}},
		"admitted without endpoint":    {"admitted without", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"endpoint": nil})}}},
		"admitted without session":     {"admitted without", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"session": ""})}}},
		"admitted without event":       {"admitted without", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"event": nil})}}},
		"admitted with a short event":  {"admitted without", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"event": eventB[:31]})}}},
		"admitted, endpoint bad":       {"endpoint 0 out of bounds", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"endpoint": with(endpoint, map[string]any{"limit": -1})})}}},
		"admitted twice":               {"admitted: ", []sentFrame{manifest, {Header: admittedB}, {Header: admittedB}}},
		"admitted twice, cached":       {"admitted: ", []sentFrame{manifest, {Header: with(admittedB, map[string]any{"cached": true})}, {Header: admittedB}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newSession(t)
			h.open(queue.Job{Events: []queue.Event{{ID: eventA}}})
			p, _ := startFake(t, "sends", framesText(append([]sentFrame{helloFrame}, row.sends...)...), func(c *ProcessConfig) { c.Reporter = h })
			within(t, patient, "the Process is killed", p.Done())
			var breach *FrameError
			if !errors.As(p.Err(), &breach) || !strings.HasPrefix(breach.Reason, row.reason) {
				t.Errorf("it ended with %v, want %s", p.Err(), row.reason)
			}
		})
	}
}

func TestAttachingForeverIsABreach(t *testing.T) {
	h := newSession(t)
	unknown := report{Op: "unknown", manifest: manifest{Port: 1}}
	for n := range maxAttached {
		if err := h.report(unknown, nil); err != nil {
			t.Fatal(n, err)
		}
	}
	var breach *FrameError
	if err := h.report(unknown, nil); !errors.As(err, &breach) {
		t.Errorf("got %v", err)
	}
}

func TestManifestReachesTheQueue(t *testing.T) {
	h := newSession(t)
	one, limit, size := 1, 2.5, 30
	err := h.report(report{Op: "manifest", manifest: manifest{
		Gradio: "6.31.0", Prefix: "/gradio_api", Mount: "/app", Port: 40000, MaxSize: &size, UpdateSeconds: 1e-9, MaxThreads: 40, Native: true,
		Endpoints: []endpoint{{ID: 0, APIName: "a", Group: "g"}, {ID: 7, Limit: &one, Batch: 4, Stream: true, TimeLimit: &limit, Inputs: 3, Free: []int{1}, Native: true}},
		Servers:   map[int][]string{3: {"ls"}}, Files: &files{Uploads: "/up", Seed: "s", Safe: []string{"image/png"}, Static: []string{"/a"}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.report(report{Op: "static", Paths: []string{"/a", "/b"}}, nil); err != nil {
		t.Fatal(err)
	}
	m, ok := h.supervisor.queue.Manifest()
	if !ok || m.Gradio != "6.31.0" || m.Prefix != "/gradio_api" || m.Mount != "/app" || m.Port != 40000 || *m.MaxSize != 30 || m.MaxThreads != 40 || !m.Native || m.PassThrough {
		t.Errorf("got %+v", m)
	}
	if m.UpdateEvery != leastUpdate { // an update every nanosecond would overload the host
		t.Errorf("updates every %s, want %s", m.UpdateEvery, leastUpdate)
	}
	want := map[int]queue.Endpoint{
		0: {ID: 0, Mount: "/app", APIName: "a", Group: "/appg"},
		7: {ID: 7, Mount: "/app", Group: "/app", Limit: 1, Batch: 4, Stream: true, TimeLimit: 2500 * time.Millisecond, Inputs: 3, Free: []int{1}, Native: true},
	}
	if f := m.Files; f == nil || f.Uploads != "/up" || f.Seed != "s" || !f.Safe["image/png"] || !slices.Equal(f.Static(), []string{"/a", "/b"}) {
		t.Errorf("got files %+v", f)
	}
	if !slices.Equal(m.Servers[3], []string{"ls"}) {
		t.Errorf("got servers %v", m.Servers)
	}
	if !reflect.DeepEqual(m.Endpoints, want) {
		t.Errorf("got %+v, want %+v", m.Endpoints, want)
	}
	if port := h.supervisor.serverPort(); port != 40000 {
		t.Errorf("upstream %d", port)
	}
}

func TestUnknownGradioPassesThrough(t *testing.T) {
	h := newSession(t)
	if err := h.report(report{Op: "unknown", Reason: "it has no Queue.push", manifest: manifest{Gradio: "9.0", Port: 40000}}, nil); err != nil {
		t.Fatal(err)
	}
	m, _ := h.supervisor.queue.Manifest()
	if !m.PassThrough || m.Reason != "it has no Queue.push" || m.Gradio != "9.0" || m.Port != 40000 || m.Native {
		t.Errorf("got %+v", m)
	}
	var breach *FrameError // such an app admits events by itself
	if err := h.report(report{Op: "admitted", Event: eventB, Session: "s", Endpoint: &endpoint{}}, nil); !errors.As(err, &breach) {
		t.Errorf("got %v", err)
	}
}

// TestEndedStartDoesNotAttach: the Queue ignores an app that a process launches while the host ends it.
func TestEndedStartDoesNotAttach(t *testing.T) {
	h := newSession(t)
	launch := func(port int) {
		t.Helper()
		if err := h.report(report{Op: "server", manifest: manifest{Port: port}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	launch(40000)
	h.end("The operator restarted the Space.")
	launch(40001)
	if m, _ := h.supervisor.queue.Manifest(); m.Port != 40000 || h.supervisor.port != 40000 {
		t.Errorf("after the end the Queue has the app at port %d, the Supervisor that at %d; want that at 40000", m.Port, h.supervisor.port)
	}
}

// A start frame contains nothing of an admitted event's request, and the token is the last header.
func TestStartFrame(t *testing.T) {
	headers := make([][2]string, 1, 8)
	headers[0] = [2]string{"host", "a"}
	job := queue.Job{App: 3, Events: []queue.Event{
		{ID: eventA, Token: "t1", Body: []byte("one"), Request: queue.Request{Headers: headers, Path: "/p", Query: "q", Scheme: "https", Client: "1.2.3.4"}},
		{ID: eventB, Token: "t2", Body: []byte("ignored"), Admitted: true},
		{ID: eventB, Token: "t3", Body: []byte("three"), Request: queue.Request{Headers: headers}},
	}}
	f := startFrame(job)
	want := `{"op":"start","app":3,"events":[` +
		`{"id":"` + string(eventA) + `","admitted":false,"token":"t1","size":3,"headers":[["host","a"],["x-ip-token","t1"]],"path":"/p","query":"q","scheme":"https","client":"1.2.3.4"},` +
		`{"id":"` + string(eventB) + `","admitted":true,"token":"t2","size":0,"headers":null,"path":"","query":"","scheme":"","client":""},` +
		`{"id":"` + string(eventB) + `","admitted":false,"token":"t3","size":5,"headers":[["host","a"],["x-ip-token","t3"]],"path":"","query":"","scheme":"","client":""}]}`
	if string(f.Header) != want || string(f.Payload) != "onethree" {
		t.Errorf("got  %s %q\nwant %s", f.Header, f.Payload, want)
	}
	if len(headers) != 1 || headers[:2][1] != [2]string{} {
		t.Errorf("the visitor's headers were modified: %v", headers[:2])
	}
}

func TestSeconds(t *testing.T) {
	if got := seconds(maxSeconds); got != 365*24*time.Hour || got < 0 || float64(math.MaxInt64) < maxSeconds*1e9 {
		t.Errorf("got %s", got)
	}
}

// mounts returns the manifests of n apps, each with its own path.
func mounts(n int) (all []sentFrame) {
	for app := range n {
		all = append(all, sentFrame{Header: with(manifestHeader(app), map[string]any{"mount": fmt.Sprint("/", app)})})
	}
	return all
}

// The GPU functions of a Space are shown to users: invalid functions are left out.
func TestShownFunctions(t *testing.T) {
	ten, far := 10.0, 1e300
	m := manifest{Tasks: map[string]task{
		"1": {Name: "draw", Seconds: &ten, Size: "xlarge"}, "2": {Name: "varies"},
		"3": {Name: "forged\nline", Seconds: &ten}, "4": {Seconds: &ten}, "5": {Name: "far", Seconds: &far}, "6": {Name: strings.Repeat("x", maxTaskName+1)}, "7": {Name: "huge", Size: "huge"},
	}}
	want := map[string]queue.Task{"1": {Name: "draw", Declared: 10 * time.Second, Size: "xlarge"}, "2": {Name: "varies", Varies: true}}
	if got := m.tasks(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
