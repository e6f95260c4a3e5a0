package deviceapi

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/lease/leasetest"
	"spacehost/internal/token"
	"spacehost/migrations"
	"spacehost/quota"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is the device API with a real Broker, one Slot and the Space "demo".
type harness struct {
	t         *testing.T
	api       *API
	echo      *echo.Echo
	broker    *lease.Broker
	db        *sql.DB
	processes *leasetest.Processes
	signer    *token.Signer
	host      *fakeHost
	path      string // of the Door of demo
	journal   leasetest.Journal
	server    *httptest.Server
}

// fakeHost implements Payers and Notifier. Every Event of demo is open until the test ends it. The functions may be nil.
type fakeHost struct {
	timedOut func(lease.Request)
	tiers    quota.Tiers

	mu    sync.Mutex
	ended map[string]bool

	beforeAlive func(event string)
	denied      func(payer identity.Identity) error
	waits       func(lease.Request, lease.Forecast)
	warned      func(space, event, text string)
	runsOver    atomic.Int32
}

func (f *fakeHost) Alive(space, event string) bool {
	if f.beforeAlive != nil {
		f.beforeAlive(event)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return space == "demo" && event != "" && !f.ended[event]
}

func (f *fakeHost) end(event string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended[event] = true
}

func (f *fakeHost) Allowance(_ context.Context, payer identity.Identity) (quota.Tier, error) {
	return f.tiers.Get(payer.Tier)
}

func (f *fakeHost) CheckDelegation(payer identity.Identity) error {
	if f.denied == nil {
		return nil
	}
	return f.denied(payer)
}

func (f *fakeHost) LeaseRefused(lease.Request, quota.Refused) {}

func (f *fakeHost) RunsOver(lease.Request) { f.runsOver.Add(1) }

func (f *fakeHost) LeaseWaits(r lease.Request, forecast lease.Forecast) {
	if f.waits != nil {
		f.waits(r, forecast)
	}
}

func (f *fakeHost) LeaseTimedOut(r lease.Request) {
	if f.timedOut != nil {
		f.timedOut(r)
	}
}

func (f *fakeHost) WarnVisitor(space, event, text string) {
	if f.warned != nil {
		f.warned(space, event, text)
	}
}

// newHarness does not listen yet.
func newHarness(t *testing.T, alter ...func(*lease.Config)) *harness {
	t.Helper()
	dir := t.TempDir()
	h := &harness{t: t, processes: leasetest.NewProcesses(), host: &fakeHost{ended: map[string]bool{}}}
	var err error
	if h.db, err = migrations.Open(t.Context(), filepath.Join(dir, "spacehost.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	if h.signer, err = token.OpenSigner(dir); err != nil {
		t.Fatal(err)
	}
	if h.host.tiers, err = quota.Presets("2026-04"); err != nil {
		t.Fatal(err)
	}
	h.startBroker(alter...)
	h.api = New(Config{Broker: h.broker, Signer: h.signer, Payers: h.host, Notifier: h.host, Logger: h.journal.Logger()})
	h.path = h.open("demo", "run-1")
	h.echo = echo.New()
	h.api.Register(h.echo)
	return h
}

func (h *harness) startBroker(alter ...func(*lease.Config)) {
	h.t.Helper()
	pool, err := gpu.NewPool(h.t.Context(), gputest.NewFakeInventory(gputest.Devices(1)...), 1)
	if err != nil {
		h.t.Fatal(err)
	}
	config := lease.Config{DB: h.db, Ledger: quota.New(h.db, quota.Config{}), Machine: &lease.Local{Pool: pool, Processes: h.processes}, Logger: h.journal.Logger()}
	for _, a := range alter {
		a(&config)
	}
	if h.broker, err = lease.New(config); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = h.broker.Run(ctx) }) // its error is that ctx has ended
	h.t.Cleanup(func() { cancel(); running.Wait() })
}

func (h *harness) open(space, instance string) (path string) {
	return h.api.Open(Door{Space: testSpace(space), Instance: instance})
}

// testSpace is a Space without known functions, by its name.
type testSpace string

func (s testSpace) Name() string                       { return string(s) }
func (s testSpace) RecordRequest(lease.Request) string { return "" }
func (s testSpace) StartupReported(string)             {}
func (s testSpace) Account() identity.Identity {
	return identity.Identity{Kind: identity.Space, Name: string(s), Tier: "free"}
}

// shortTimings are for tests with a real listener, and so with real time.
var shortTimings = timings{soon: 20 * time.Millisecond, ping: 20 * time.Millisecond, hangUp: 10 * time.Second, settle: 200 * time.Millisecond}

// listening returns a harness that listens on a real port, with short timings.
func listening(t *testing.T, alter ...func(*lease.Config)) *harness {
	t.Helper()
	h := newHarness(t, alter...)
	h.api.times = shortTimings
	h.listen()
	return h
}

// listen is called after all changes of the API. At the end of the test it closes open streams before the Broker stops.
func (h *harness) listen() {
	h.server = httptest.NewServer(h.echo)
	h.t.Cleanup(func() {
		h.server.CloseClientConnections()
		h.server.Close()
	})
}

// answer is a complete HTTP response.
type answer struct {
	status int
	header http.Header
	body   string
}

// call sends all arguments in the query, as the client does.
func (h *harness) call(method, path string, query url.Values, header ...string) answer {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.server.URL+path+"?"+query.Encode(), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	request.Close = true // goleak fails on an idle connection
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func (h *harness) post(call string, pairs ...string) answer {
	h.t.Helper()
	return h.call(http.MethodPost, h.path+call, values(pairs...))
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// token returns a token of demo for a visitor of that tier.
func (h *harness) token(name, tier, event string) string {
	h.t.Helper()
	token, err := h.signer.Sign(token.Claims{Aud: "demo", Sub: "user:" + name, Tier: tier, ID: event})
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

var allowToken = regexp.MustCompile(`"allowToken":"([0-9a-f]{32})"`)

// grant takes the Slot for Ada and returns the allowToken. On a busy machine the grant may come in a stream.
func (h *harness) grant() string {
	h.t.Helper()
	a := h.post("/schedule", "token", h.token("ada", "free", "event-ada"))
	found := allowToken.FindStringSubmatch(a.body)
	if found == nil {
		h.t.Fatalf("schedule: got %d %q, want a grant", a.status, a.body)
	}
	return found[1]
}

// chunkedAnswer is a response whose chunks a test reads one by one.
type chunkedAnswer struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	status string
	header textproto.MIMEHeader
}

// stream requests a GPU and reads the headers of the answer.
func (h *harness) stream(pairs ...string) *chunkedAnswer {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.server.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST %s/schedule?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", h.path, values(pairs...).Encode())
	w := &chunkedAnswer{t: h.t, conn: conn, reader: bufio.NewReader(conn)}
	head := textproto.NewReader(w.reader)
	if w.status, err = head.ReadLine(); err != nil {
		h.t.Fatal(err)
	}
	if w.header, err = head.ReadMIMEHeader(); err != nil {
		h.t.Fatal(err)
	}
	return w
}

// wait returns the stream of Ben's request, which waits while Ada has the Slot.
func (h *harness) wait(pairs ...string) *chunkedAnswer {
	h.t.Helper()
	w := h.stream(append([]string{"token", h.token("ben", "pro", "event-ben")}, pairs...)...)
	if w.status != "HTTP/1.1 200 OK" || w.header.Get("Content-Type") != "text/event-stream" {
		h.t.Fatalf("got %s, %v; want a stream", w.status, w.header)
	}
	return w
}

// chunk returns the next chunk; "" at the end of the answer.
func (w *chunkedAnswer) chunk() string {
	w.t.Helper()
	line, err := w.reader.ReadString('\n')
	if err != nil {
		w.t.Fatalf("size of a chunk: %v", err)
	}
	size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
	if err != nil {
		w.t.Fatalf("size of a chunk: got %q", line)
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(w.reader, data); err != nil || string(data[size:]) != "\r\n" {
		w.t.Fatalf("chunk of %d: got %q (%v)", size, data, err)
	}
	return string(data[:size])
}

const ping = "event: ping\n\n"

func (w *chunkedAnswer) want(chunk string) {
	w.t.Helper()
	if got := w.chunk(); got != chunk {
		w.t.Fatalf("got chunk %q, want %q", got, chunk)
	}
}

// afterPings returns the first chunk that is not a ping.
func (w *chunkedAnswer) afterPings() string {
	w.t.Helper()
	for {
		if c := w.chunk(); c != ping {
			return c
		}
	}
}

// until polls for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// last returns the Lease that ended last.
func (h *harness) last() lease.Past {
	h.t.Helper()
	all, err := h.broker.Past(h.t.Context(), 1)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(all) == 0 {
		return lease.Past{}
	}
	return all[0]
}
