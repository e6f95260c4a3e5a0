package gradioapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/internal/identity"
	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
	"spacehost/queue"
)

// waitLimit bounds every wait of these tests.
const waitLimit = 10 * time.Second

const (
	api      = "/gradio_api"
	spaceKey = "key-of-this-start"
)

// host is the API of one Space on a real address, with a real Queue. The test plays the Space's own server and its
// runner.
type host struct {
	*testing.T
	url     string
	queue   *queue.Queue
	runner  *fakeRunner
	space   *fakeSpace
	client  *http.Client
	server  *httptest.Server
	handler *gradioapi.Handler
	// stopQueue ends Run and waits for it; it may be called twice.
	stopQueue func()
}

// setup is the configuration that a test may change. The default is a running Space, attached after Run.
type setup struct {
	config   gradioapi.Config
	manifest *queue.Manifest // nil: the Space has never started
	files    shelf.Config    // of the Space's files
	sessions int             // limit per visitor; 0: the default
	listener func(net.Listener) net.Listener
}

func newHost(t *testing.T, change ...func(*setup)) *host {
	t.Helper()
	h := &host{T: t, runner: newFakeRunner(), space: newFakeSpace(t)}
	m := captured()
	s := setup{manifest: &m, config: gradioapi.Config{Space: "demo", Upstream: h.space, Identify: ada, SignToken: sign}}
	for _, c := range change {
		c(&s)
	}
	h.queue = queue.New(queue.Config{Runner: h.runner, Sign: sign, SessionsEach: s.sessions})
	s.config.Queue = h.queue
	s.files.IsPresent = h.queue.IsPresent
	if s.config.Shelf == nil {
		s.config.Shelf = shelftest.New(t, s.files)
	}
	h.stopQueue = runQueue(t, h.queue)
	if s.manifest != nil {
		h.queue.Attach(*s.manifest)
	}
	e := echo.New()
	handler := gradioapi.New(s.config)
	handler.Register(e)
	h.server = httptest.NewUnstartedServer(e)
	if s.listener != nil {
		h.server.Listener = s.listener(h.server.Listener)
	}
	h.server.Start()
	h.handler = handler
	h.url, h.client = h.server.URL, &http.Client{Transport: &http.Transport{DisableCompression: true, ExpectContinueTimeout: waitLimit}}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		h.server.CloseClientConnections()
		h.server.Close()
		h.stopQueue()
		handler.Close()
	})
	return h
}

func runQueue(t *testing.T, q *queue.Queue) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = q.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func ada(*http.Request) (identity.Identity, error) {
	return identity.Identity{Kind: identity.User, Name: "ada"}, nil
}

func sign(event queue.Event) string { return "token-" + string(event.ID) }

// Endpoints of the app that was captured; the indices are those of captures/v6/config.json.
const (
	quick, slow, gen, boom, gerr, prog, logs, batch, forever = 0, 1, 2, 3, 4, 5, 7, 8, 9
	validated                                                = 30 // an Endpoint that only the Space can admit
)

var fnNames = map[string]int{
	"quick": quick, "slow": slow, "gen": gen, "boom": boom, "gerr": gerr, "prog": prog, "logs": logs, "batch": batch, "forever": forever,
}

func captured() queue.Manifest {
	m := queue.Manifest{
		Gradio: "6.31.0", Prefix: api, Port: 7901, LiveUpdates: true, MaxThreads: 40, Native: true,
		Endpoints: map[int]queue.Endpoint{validated: {ID: validated, APIName: "validated", Group: "validated", Limit: 1}},
	}
	for name, fn := range fnNames {
		m.Endpoints[fn] = queue.Endpoint{ID: fn, APIName: name, Group: name, Limit: 1, Inputs: 1, Native: true}
	}
	b := m.Endpoints[batch]
	b.Batch = 3
	m.Endpoints[batch] = b
	return m
}

// with changes the manifest.
func with(change func(*queue.Manifest)) func(*setup) {
	return func(s *setup) { change(s.manifest) }
}

func neverStarted(s *setup) { s.manifest = nil }

func maxSessions(sessions int) func(*setup) { return func(s *setup) { s.sessions = sessions } }

func maxSize(n int) func(*setup) { return with(func(m *queue.Manifest) { m.MaxSize = &n }) }

// fakeRunner is a Runner whose Jobs the test answers.
type fakeRunner struct {
	jobs      chan queue.Job
	cancelled chan queue.EventID
	gone      chan []queue.EventID
}

func newFakeRunner() *fakeRunner {
	return &fakeRunner{make(chan queue.Job, 100), make(chan queue.EventID, 100), make(chan []queue.EventID, 100)}
}

func (s *fakeRunner) Start(job queue.Job)                { s.jobs <- job }
func (s *fakeRunner) Cancel(_ int, event queue.EventID)  { s.cancelled <- event }
func (s *fakeRunner) Gone(_ int, events []queue.EventID) { s.gone <- events }

var _ queue.Runner = (*fakeRunner)(nil)

// receive waits for a value from another goroutine.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(waitLimit):
		t.Fatalf("%s: nothing received in %s", what, waitLimit)
		panic("unreachable")
	}
}

// eventually waits until a state without a notification is reached.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(waitLimit)
	for !reached() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not reached in %s", what, waitLimit)
		}
	}
}

// started returns the Event of the next Job.
func (h *host) started() queue.Event {
	h.Helper()
	job := receive(h.T, h.runner.jobs, "a job")
	if len(job.Events) != 1 {
		h.Fatalf("got a job of %d events, want one", len(job.Events))
	}
	return job.Events[0]
}

// emit sends a Message of Gradio for a running Event. $ID in it stands for the Event's id.
func (h *host) emit(event queue.EventID, raw string) {
	h.Helper()
	var m struct{ Msg queue.Kind }
	raw = strings.ReplaceAll(raw, "$ID", string(event))
	if err := json.Unmarshal([]byte(raw), &m); err != nil || m.Msg == "" {
		h.Fatalf("not a message: %s (%v)", raw, err)
	}
	h.queue.Message(event, queue.Message{Kind: m.Msg, Event: event, Raw: []byte(raw)})
}

const completedMessage = `{"msg":"process_completed","event_id":"$ID","output":{"data":["hi"]},"success":true}`

func (h *host) finish(event queue.EventID) {
	h.emit(event, completedMessage)
	h.queue.Done(event, "", nil)
}

// answer is a complete HTTP response. err is the error at the end of its body; nil: a clean end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (h *host) do(method, path, body string, header ...string) answer {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), waitLimit)
	defer cancel()
	r := h.request(ctx, method, path, strings.NewReader(body), header...)
	got, err := h.client.Do(r)
	if err != nil {
		h.Fatalf("%s %s: %v", method, path, err)
	}
	defer got.Body.Close()
	read, err := io.ReadAll(got.Body)
	if errors.Is(err, context.DeadlineExceeded) {
		h.Fatalf("%s %s does not end; read so far: %s", method, path, read)
	}
	return answer{got.StatusCode, got.Header, string(read), err}
}

// request takes headers as "Name: value". Host sets the request's own host.
func (h *host) request(ctx context.Context, method, path string, body io.Reader, header ...string) *http.Request {
	h.Helper()
	r, err := http.NewRequestWithContext(ctx, method, h.url+path, body)
	if err != nil {
		h.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
	return r
}

func (h *host) get(path string, header ...string) answer {
	h.Helper()
	return h.do(http.MethodGet, path, "", header...)
}

func (h *host) post(path, body string, header ...string) answer {
	h.Helper()
	return h.do(http.MethodPost, path, body, header...)
}

// join sends a call as a browser does. data is JSON.
func (h *host) join(fn int, session, data string, header ...string) queue.EventID {
	h.Helper()
	got := h.post(api+"/queue/join", fmt.Sprintf(`{"data":%s,"event_data":null,"fn_index":%d,"trigger_id":5,"session_hash":%q}`, data, fn, session), header...)
	return h.eventOf(got)
}

func (h *host) eventOf(got answer) queue.EventID {
	h.Helper()
	var body struct {
		EventID queue.EventID `json:"event_id"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.status != http.StatusOK || len(body.EventID) != 32 {
		h.Fatalf("got %d %s, want 200 and an event_id", got.status, got.body)
	}
	return body.EventID
}

func (h *host) cancel(session string, fn int, event queue.EventID) {
	h.Helper()
	got := h.post(api+"/cancel", fmt.Sprintf(`{"session_hash":%q,"fn_index":%d,"event_id":%q}`, session, fn, event))
	if got.status != http.StatusOK || got.body != `{"success":true}` {
		h.Errorf("cancel: got %d %s", got.status, got.body)
	}
}

// stream is a response that is read frame by frame.
type stream struct {
	*testing.T
	status int
	header http.Header
	reader *bufio.Reader
	close  func()
}

func (h *host) open(path string, header ...string) *stream {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), waitLimit)
	got, err := h.client.Do(h.request(ctx, http.MethodGet, path, nil, header...))
	if err != nil {
		cancel()
		h.Fatalf("open %s: %v", path, err)
	}
	s := &stream{T: h.T, status: got.StatusCode, header: got.Header, reader: bufio.NewReader(got.Body)}
	s.close = func() {
		cancel()
		_ = got.Body.Close()
	}
	h.Cleanup(s.close)
	return s
}

func (h *host) data(session string) *stream {
	h.Helper()
	return h.open(api + "/queue/data?session_hash=" + session)
}

// frame returns the next frame, with the empty line that ends it.
func (s *stream) frame() string {
	s.Helper()
	frame, err := s.next()
	if err != nil {
		s.Fatalf("the stream ended (%v) with %q", err, frame)
	}
	return frame
}

func (s *stream) next() (string, error) {
	var frame strings.Builder
	for {
		line, err := s.reader.ReadString('\n')
		frame.WriteString(line)
		if err != nil || line == "\n" {
			return frame.String(), err
		}
	}
}

// remaining reads the frames until the stream ends.
func (s *stream) remaining() (frames []string, err error) {
	for {
		frame, err := s.next()
		if frame != "" {
			frames = append(frames, frame)
		}
		if err != nil {
			return frames, err
		}
	}
}

// expect compares the next frames. $ID stands for event.
func (s *stream) expect(event queue.EventID, frames ...string) {
	s.Helper()
	for _, want := range frames {
		want = strings.ReplaceAll(want, "$ID", string(event))
		if got := s.frame(); got != want {
			s.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

const (
	firstEstimation = `data: {"msg":"estimation","event_id":"$ID","rank":0,"queue_size":1,"rank_eta":null}` + "\n\n"
	closeStream     = `data: {"msg":"close_stream","event_id":null}` + "\n\n"
	completed       = "data: " + completedMessage + "\n\n"
	notFound        = `data: {"msg":"unexpected_error","event_id":null,"message":"404: Not Found","session_not_found":true,"success":false}` + "\n\n"
)

func (s *stream) expectEnd() {
	s.Helper()
	if frames, err := s.remaining(); len(frames) > 0 || !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("got %q and %v, want a clean end", frames, err)
	}
}

func (s *stream) expectBroken() {
	s.Helper()
	if frames, err := s.remaining(); len(frames) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("got %q and %v, want a broken response", frames, err)
	}
}

// send sends a request that do cannot build.
func (h *host) send(r *http.Request) answer {
	h.Helper()
	got, err := h.client.Do(r)
	if err != nil {
		h.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	return answer{got.StatusCode, got.Header, string(body), err}
}
