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
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/internal/identity"
	"spacehost/queue"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

const (
	api      = "/gradio_api"
	spaceKey = "key-of-this-start"
)

// host is the API of one Space on a real address, with a real Queue. The Space's own server and its runner are
// played by the test.
type host struct {
	*testing.T
	url     string
	queue   *queue.Queue
	runner  *script
	space   *fakeSpace
	client  *http.Client
	server  *httptest.Server
	handler *gradioapi.Handler
	// stopQueue ends Run and waits for it; it may be called twice.
	stopQueue func()
}

// setup is what a test may want otherwise; newHost's default is a Space that runs, without attach before Run.
type setup struct {
	config   gradioapi.Config
	manifest *queue.Manifest // nil: the Space has never started
	sessions int             // of one visitor; 0: the usual
	listener func(net.Listener) net.Listener
}

func newHost(t *testing.T, change ...func(*setup)) *host {
	t.Helper()
	h := &host{T: t, runner: newScript(), space: newFakeSpace(t)}
	m := captured()
	s := setup{manifest: &m, config: gradioapi.Config{Space: "demo", Upstream: h.space, Identify: ada, SignToken: sign}}
	for _, c := range change {
		c(&s)
	}
	h.queue = queue.New(queue.Config{Runner: h.runner, Sign: sign, SessionsEach: s.sessions})
	s.config.Queue = h.queue
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
	h.url, h.client = h.server.URL, &http.Client{Transport: &http.Transport{DisableCompression: true, ExpectContinueTimeout: patience}}
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

// Endpoints of the app that the captures were taken from; fn indices are those of captures/v6/config.json.
const (
	quick, slow, gen, boom, gerr, prog, logs, batch, forever = 0, 1, 2, 3, 4, 5, 7, 8, 9
	validated                                                = 30 // and one that only the Space can admit
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

// with changes the manifest of a newHost.
func with(change func(*queue.Manifest)) func(*setup) {
	return func(s *setup) { change(s.manifest) }
}

func neverStarted(s *setup) { s.manifest = nil }

func few(sessions int) func(*setup) { return func(s *setup) { s.sessions = sessions } }

func maxSize(n int) func(*setup) { return with(func(m *queue.Manifest) { m.MaxSize = &n }) }

// script is a Runner whose Jobs the test answers.
type script struct {
	jobs      chan queue.Job
	cancelled chan queue.EventID
	gone      chan []queue.EventID
}

func newScript() *script {
	return &script{make(chan queue.Job, 100), make(chan queue.EventID, 100), make(chan []queue.EventID, 100)}
}

func (s *script) Start(job queue.Job)                { s.jobs <- job }
func (s *script) Cancel(_ int, event queue.EventID)  { s.cancelled <- event }
func (s *script) Gone(_ int, events []queue.EventID) { s.gone <- events }

var _ queue.Runner = (*script)(nil)

// receive waits for what another goroutine is about to say.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("%s: nothing in %s", what, patience)
		panic("unreachable")
	}
}

// eventually waits for a state that is reached without a word.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for !reached() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: not in %s", what, patience)
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

// say is what Gradio says of a running Event; $ID in it stands for the Event's id.
func (h *host) say(event queue.EventID, raw string) {
	h.Helper()
	var m struct{ Msg queue.Kind }
	raw = strings.ReplaceAll(raw, "$ID", string(event))
	if err := json.Unmarshal([]byte(raw), &m); err != nil || m.Msg == "" {
		h.Fatalf("not a message: %s (%v)", raw, err)
	}
	h.queue.Message(event, queue.Message{Kind: m.Msg, Event: event, Raw: []byte(raw)})
}

const saidCompleted = `{"msg":"process_completed","event_id":"$ID","output":{"data":["hi"]},"success":true}`

func (h *host) finish(event queue.EventID) {
	h.say(event, saidCompleted)
	h.queue.Done(event, "", nil)
}

// answer is a whole HTTP answer; err says how its body ended, nil if as HTTP wants it.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (h *host) do(method, path, body string, header ...string) answer {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	r := h.request(ctx, method, path, strings.NewReader(body), header...)
	got, err := h.client.Do(r)
	if err != nil {
		h.Fatalf("%s %s: %v", method, path, err)
	}
	defer got.Body.Close()
	read, err := io.ReadAll(got.Body)
	if errors.Is(err, context.DeadlineExceeded) {
		h.Fatalf("%s %s does not end; so far: %s", method, path, read)
	}
	return answer{got.StatusCode, got.Header, string(read), err}
}

// request takes headers as "Name: value"; Host among them is the request's own.
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

// join is a call as a browser sends it; data is JSON.
func (h *host) join(fn int, session, data string) queue.EventID {
	h.Helper()
	got := h.post(api+"/queue/join", fmt.Sprintf(`{"data":%s,"event_data":null,"fn_index":%d,"trigger_id":5,"session_hash":%q}`, data, fn, session))
	return h.eventOf(got)
}

func (h *host) eventOf(got answer) queue.EventID {
	h.Helper()
	var said struct {
		EventID queue.EventID `json:"event_id"`
	}
	if err := json.Unmarshal([]byte(got.body), &said); err != nil || got.status != http.StatusOK || len(said.EventID) != 32 {
		h.Fatalf("got %d %s, want 200 and an event_id", got.status, got.body)
	}
	return said.EventID
}

func (h *host) cancel(session string, fn int, event queue.EventID) {
	h.Helper()
	got := h.post(api+"/cancel", fmt.Sprintf(`{"session_hash":%q,"fn_index":%d,"event_id":%q}`, session, fn, event))
	if got.status != http.StatusOK || got.body != `{"success":true}` {
		h.Errorf("cancel: got %d %s", got.status, got.body)
	}
}

// stream is an answer that is read frame by frame.
type stream struct {
	*testing.T
	status int
	header http.Header
	reader *bufio.Reader
	close  func()
}

func (h *host) open(path string, header ...string) *stream {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
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

// frame is the next frame with the empty line that ends it.
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

// rest is what comes until the stream ends.
func (s *stream) rest() (frames []string, err error) {
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

// expect compares the next frames; $ID stands for event.
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
	firstInLine = `data: {"msg":"estimation","event_id":"$ID","rank":0,"queue_size":1,"rank_eta":null}` + "\n\n"
	closeStream = `data: {"msg":"close_stream","event_id":null}` + "\n\n"
	completed   = "data: " + saidCompleted + "\n\n"
	notFound    = `data: {"msg":"unexpected_error","event_id":null,"message":"404: Not Found","session_not_found":true,"success":false}` + "\n\n"
)

func (s *stream) ends() {
	s.Helper()
	if frames, err := s.rest(); len(frames) > 0 || !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("got %q and %v, want a clean end", frames, err)
	}
}

func (s *stream) breaksOff() {
	s.Helper()
	if frames, err := s.rest(); len(frames) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		s.Errorf("got %q and %v, want an answer that breaks off", frames, err)
	}
}

// fakeSpace is the Space's own server. It keeps what arrives and answers by routes, else with the path.
type fakeSpace struct {
	*httptest.Server
	down  atomic.Bool
	stage [2]string

	mu       sync.Mutex
	routes   map[string]http.HandlerFunc
	requests []arrival
}

// arrival is a request as the Space saw it.
type arrival struct {
	method, target, host, body string
	header                     http.Header
}

func newFakeSpace(t *testing.T) *fakeSpace {
	s := &fakeSpace{routes: map[string]http.HandlerFunc{}, stage: [2]string{"RUNNING", ""}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

var _ gradioapi.Upstream = (*fakeSpace)(nil)

func (s *fakeSpace) Upstream() (port int, key string, ok bool) {
	return s.Listener.Addr().(*net.TCPAddr).Port, spaceKey, !s.down.Load()
}

func (s *fakeSpace) Stage() (stage, reason string) { return s.stage[0], s.stage[1] }

// route lets a test answer a path, or with "*" every other; the handler reads the body itself.
func (s *fakeSpace) route(path string, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[path] = answer
}

func (s *fakeSpace) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.routes[r.URL.Path]
	if answer == nil {
		answer = s.routes["*"]
	}
	s.mu.Unlock()
	if answer != nil {
		s.keep(r, "")
		answer(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	s.keep(r, string(body))
	fmt.Fprintf(w, "the Space answers %s", r.URL.Path)
}

func (s *fakeSpace) keep(r *http.Request, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, arrival{r.Method, r.RequestURI, r.Host, body, r.Header.Clone()})
}

func (s *fakeSpace) arrived() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival{}, s.requests...)
}

// only returns the one request that arrived.
func (h *host) only() arrival {
	h.Helper()
	got := h.space.arrived()
	if len(got) != 1 {
		h.Fatalf("%d requests arrived at the Space, want 1: %v", len(got), got)
	}
	return got[0]
}

func (h *host) nothingArrived() {
	h.Helper()
	if got := h.space.arrived(); len(got) > 0 {
		h.Errorf("arrived at the Space: %v", got)
	}
}

// call is the direct call that a request to the Space names, by its token.
func (a arrival) call() queue.EventID {
	return queue.EventID(strings.TrimPrefix(a.header.Get("X-Ip-Token"), "token-"))
}

// admits plays a join route of the Space: its runner reports the Event, then it answers.
func (h *host) admits(session string, endpoint queue.Endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := queue.NewEventID()
		if err := h.report(r, id, session, endpoint); err != nil {
			h.Errorf("admit: %v", err)
		}
		fmt.Fprintf(w, `{"event_id":%q}`, id)
	}
}

// report is what worker.heard does with "admitted". Without a session the Event has one of its own.
func (h *host) report(r *http.Request, id queue.EventID, session string, endpoint queue.Endpoint) error {
	payer, ok := h.queue.Payer(queue.EventID(r.Header.Get("X-Spacehost-Call")))
	if !ok {
		return errors.New("nobody pays for this call")
	}
	if session == "" {
		session = string(id)
	}
	return h.queue.Join(&queue.Event{ID: id, Session: queue.SessionHash(session), Endpoint: endpoint, Payer: payer, Admitted: true})
}

// send does a request that do cannot make.
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
