package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"spacehost/internal/control"
	"spacehost/internal/nodes"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// movesFile has three Spaces that two nodes may run. Each person has a tier of their own, so that the series of a tier are those of a person.
const movesFile = `
cluster: {listen: CLUSTER}
gpus: {machine: mock:1xH200}
quota: 2026-04
console: CONSOLE
drain: 3m
tiers: {t1: {quota: 5h}, t2: {quota: 5h}, t3: {quota: 5h}, t4: {quota: 5h}}
people:
  - {name: p1, tier: t1, tokens: [HASH1]}
  - {name: p2, tier: t2, tokens: [HASH2]}
  - {name: p3, tier: t3, tokens: [HASH3]}
  - {name: p4, tier: t4, tokens: [HASH4]}
spaces:
  - {folder: FAR, name: one, address: ONE, on: lab}
  - {folder: FAR, name: two, address: TWO, on: lab}
  - {folder: FAR, name: three, address: THREE, on: lab}
`

// movedSpaces are the Spaces of movesFile.
var movedSpaces = []string{"one", "two", "three"}

// movesLab is a front with two nodes, left and right.
type movesLab struct {
	reloadLab
	tokens []string // of p1 to p4
}

// serveMovesLab returns a front whose Spaces run on the node left.
func serveMovesLab(t *testing.T) *movesLab {
	t.Helper()
	requireLevel(t, "namespaces")
	environment(t)
	l := &movesLab{reloadLab: reloadLab{product: &product{t: t}}}
	l.State = t.TempDir()
	l.file = filepath.Join(l.State, "lab.yaml")
	for _, name := range []string{"HASH1", "HASH2", "HASH3", "HASH4"} {
		token, hash := people.NewToken()
		l.tokens = append(l.tokens, token)
		l.vars = append(l.vars, name, hash)
	}
	for _, name := range []string{"CLUSTER", "CONSOLE", "ONE", "TWO", "THREE"} {
		l.vars = append(l.vars, name, freeAddress(t))
	}
	far, err := filepath.Abs("testdata/spaces/far")
	if err != nil {
		t.Fatal(err)
	}
	l.vars = append(l.vars, "FAR", far)
	writeFile(t, l.file, strings.NewReplacer(l.vars...).Replace(movesFile))
	l.start()
	l.join("left")
	l.awaitAllOn("left")
	l.join("right")
	l.awaitNode("right", nodes.Connected)
	return l
}

func (l *movesLab) join(name string) {
	l.t.Helper()
	t := l.t.(*testing.T)
	agent := startAgent(t, l.Cluster, t.TempDir(), "--token-file", l.joinToken("--name", name), "--name", name, "--label", "lab")
	t.Cleanup(func() {
		if t.Failed() {
			text := agent.text()
			t.Logf("output of the agent of %s:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
}

// awaitAllOn waits until all Spaces run on a node.
func (l *movesLab) awaitAllOn(node string) {
	l.t.Helper()
	eventually(l.t, "all Spaces run on "+node, 2*patience, func() bool {
		for _, name := range movedSpaces {
			if s := l.space(name); s.Stage != "RUNNING" || s.Node != node {
				return false
			}
		}
		return true
	})
}

// TestMovesUnderLoad drains a node with three Spaces to another one, and returns it, while 20 clients call plain and GPU functions. No call
// may end without its result: calls that run end normally, and calls that wait continue on the next start. Afterwards, all places that show
// used seconds agree to the millisecond, and the front finds the Spaces again after a crash.
func TestMovesUnderLoad(t *testing.T) {
	if !fire {
		t.Skip("it runs for minutes: make fire")
	}
	t.Parallel()
	l := serveMovesLab(t)
	load := &movesLoad{lab: l, endpoints: map[string]int{}, heard: map[string]bool{}}
	load.readEndpoints(t)
	var callers sync.WaitGroup
	stop := sync.OnceFunc(func() { load.stopping.Store(true); callers.Wait() })
	defer stop()
	for n := range 17 {
		s := &movesSession{load: load, url: l.space(movedSpaces[n%3]).URL, token: l.tokens[n%4], hash: strings.ToLower(rand.Text()[:12])}
		callers.Go(func() { s.run(t, n) })
	}
	for n, name := range movedSpaces { // three of the 20 are gradio_client
		c := l.clientAs(l.space(name).URL, l.tokens[n])
		callers.Go(func() { load.runPython(c) })
	}
	load.awaitAnswers(t)

	l.must("node", "drain", "left", "--reason", "new fan")
	l.awaitAllOn("right")
	load.awaitAnswers(t)
	l.must("node", "return", "left")
	load.awaitAnswers(t)
	l.awaitAllOn("right") // a node that returns moves nothing
	l.must("node", "drain", "right", "--reason", "new fan")
	l.awaitAllOn("left")
	load.awaitAnswers(t)
	stop()

	t.Logf("calls %d, of them of GPU functions %d", load.calls.Load(), load.ofGPU.Load())
	eventually(t, "no lease is open", patience, func() bool { return len(l.leases().Open) == 0 })
	l.wantAgreement(int(load.ofGPU.Load()))
	l.wantUsage()
	l.wantKeptAfterCrash()
	l.stop()
	wantExactLedger(t, filepath.Join(l.State, "spacehost.db"), int(load.ofGPU.Load()))
}

// movesLoad counts the answers of constant calls.
type movesLoad struct {
	lab       *movesLab
	endpoints map[string]int // fn_index by api_name, which is the same for all Spaces
	stopping  atomic.Bool
	calls     atomic.Int64
	ofGPU     atomic.Int64

	mu    sync.Mutex
	heard map[string]bool // callers with an answer since awaitAnswers began
}

func (m *movesLoad) readEndpoints(t *testing.T) {
	t.Helper()
	var config struct {
		Dependencies []struct {
			ID      int    `json:"id"`
			APIName string `json:"api_name"`
		}
	}
	if err := json.Unmarshal([]byte(get(t, m.lab.space("one").URL+"/config")), &config); err != nil {
		t.Fatal(err)
	}
	for _, d := range config.Dependencies {
		m.endpoints[d.APIName] = d.ID
	}
}

func (m *movesLoad) answered(caller, api string) {
	m.calls.Add(1)
	if api == "on_gpu" {
		m.ofGPU.Add(1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[caller] = true
}

// awaitAnswers waits until each of the 20 callers has had an answer.
func (m *movesLoad) awaitAnswers(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	m.heard = map[string]bool{}
	m.mu.Unlock()
	eventually(t, "all callers have answers", 2*patience, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.heard) == 20
	})
}

// runPython calls with gradio_client until the load stops.
func (m *movesLoad) runPython(c *client) {
	for !m.stopping.Load() {
		for api, args := range map[string][]any{"on_gpu": {0.05}, "count": nil} {
			if r := c.submit("/"+api, args...).waitWithin(2 * patience); r.Failed {
				c.t.Errorf("gradio_client: a call of %s has ended with %q", api, r.Err)
			}
			m.answered(fmt.Sprintf("%p", c), api)
		}
	}
}

// movesSession calls as @gradio/client does: it joins the queue, and reads the stream of its session up to the end of the call.
type movesSession struct {
	load             *movesLoad
	url, token, hash string
}

// movesCalls are the calls of each session in turn, with their results.
var movesCalls = []struct{ api, data, want string }{
	{"on_gpu", "[0.1]", `"computed"`}, {"count", "[null]", ""}, {"steps", "[3]", `"1 2 3 "`}, {"on_gpu", "[0.02]", `"computed"`},
}

func (s *movesSession) run(t *testing.T, first int) {
	for n := first; !s.load.stopping.Load(); n++ {
		one := movesCalls[n%len(movesCalls)]
		if got, err := s.call(t.Context(), one.api, one.data); err != nil || one.want != "" && got != one.want {
			t.Errorf("session %s at %s: a call of %s has ended with %s (%v)", s.hash, s.url, one.api, got, err)
		}
		s.load.answered(s.hash, one.api)
	}
}

// call makes a call and returns its first output.
func (s *movesSession) call(ctx context.Context, api, data string) (string, error) {
	body := fmt.Sprintf(`{"data":%s,"fn_index":%d,"session_hash":%q,"event_data":null,"trigger_id":null}`, data, s.load.endpoints[api], s.hash)
	answer, err := s.send(ctx, http.MethodPost, "/queue/join", body)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var joined struct {
		ID string `json:"event_id"`
	}
	if text, err := io.ReadAll(answer.Body); err != nil || json.Unmarshal(text, &joined) != nil || joined.ID == "" {
		return "", fmt.Errorf("join: %s %s (%v)", answer.Status, text, err)
	}
	stream, err := s.send(ctx, http.MethodGet, "/queue/data?session_hash="+s.hash, "")
	if err != nil {
		return "", err
	}
	defer stream.Body.Close()
	return s.read(stream.Body, joined.ID)
}

// read reads a stream up to its end, and returns the first output of a call.
func (s *movesSession) read(stream io.Reader, id string) (output string, err error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	found := false
	for lines.Scan() {
		data, isMessage := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !isMessage {
			continue
		}
		var m struct {
			Msg     string
			Event   string `json:"event_id"`
			Success bool
			Output  struct{ Data []json.RawMessage }
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return "", err
		}
		switch {
		case m.Msg == "process_completed" && m.Event == id:
			if !m.Success || len(m.Output.Data) == 0 {
				return "", errors.New(string(data))
			}
			output, found = string(m.Output.Data[0]), true
		case m.Msg == "unexpected_error":
			return "", errors.New(string(data))
		case m.Msg == "close_stream" && found:
			return output, nil
		}
	}
	return "", fmt.Errorf("the stream has ended without the end of the call (%v)", lines.Err())
}

func (s *movesSession) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url+"/gradio_api"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+s.token)
	return (&http.Client{Timeout: 2 * patience}).Do(r)
}

// jsonOf runs a command with --json and returns its answer.
func jsonOf[T any](p *product, args ...string) (answer T) {
	p.t.Helper()
	out := p.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		p.t.Fatalf("spacehost %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return answer
}

// ms returns seconds as milliseconds. Sums of seconds in /metrics have rounding errors of a float64.
func ms(seconds float64) int64 { return int64(math.Round(seconds * 1000)) }

// wantAgreement compares quota, ledger, lease and /metrics: by person, and by Space.
func (l *movesLab) wantAgreement(calls int) {
	l.t.Helper()
	all := jsonOf[control.Leases](l.product, "lease", "--limit", "10000")
	if len(all.Ended) != calls {
		l.t.Errorf("%d leases have ended, want one for each of %d calls", len(all.Ended), calls)
	}
	type key struct{ person, space string }
	charged, ended, on := map[key]int64{}, map[string]int{}, map[string]int{}
	sums, numbers := map[string]int64{}, map[string]int{}
	for _, one := range all.Ended {
		person := strings.TrimPrefix(one.Identity, "user:")
		charged[key{person, one.Space}] += ms(one.ChargedSeconds)
		sums[person] += ms(one.ChargedSeconds)
		numbers[person]++
		ended[fmt.Sprintf(`spacehost_leases_ended_total{space=%q,state=%q}`, one.Space, one.State)]++
		on[one.Machine]++
	}
	if len(on) != 2 || on["left"] == 0 || on["right"] == 0 {
		l.t.Errorf("leases by node: %v, want some on both", on)
	}
	for _, b := range jsonOf[[]control.Balance](l.product, "quota") {
		person := strings.TrimPrefix(b.Identity, "user:")
		if ms(b.ChargedSeconds) != sums[person] || b.HeldSeconds != 0 {
			l.t.Errorf("quota of %s: charged %v s, held %v s; the leases have %d ms", person, b.ChargedSeconds, b.HeldSeconds, sums[person])
		}
		if ms(b.LeftSeconds) != ms(b.BaseSeconds)-sums[person] {
			l.t.Errorf("quota of %s: %v of %v s left; the leases have %d ms", person, b.LeftSeconds, b.BaseSeconds, sums[person])
		}
	}
	series := l.metrics()
	for person, want := range sums {
		l.wantLedger(person, want, numbers[person])
	}
	for k, want := range charged {
		name := fmt.Sprintf(`spacehost_gpu_charged_seconds_total{space=%q,tier=%q}`, k.space, "t"+k.person[1:])
		if got := ms(series[name]); got != want {
			l.t.Errorf("%s is %d ms; the leases have %d ms", name, got, want)
		}
	}
	for name, want := range ended {
		if series[name] != float64(want) {
			l.t.Errorf("%s is %v; the leases have %d", name, series[name], want)
		}
	}
	l.t.Logf("leases by node %v; charged ms by person %v", on, sums)
}

// wantLedger compares the ledger of a person with the sum of the leases.
func (l *movesLab) wantLedger(person string, want int64, leases int) {
	l.t.Helper()
	var charged, held, returned int64
	settled := 0
	for _, e := range jsonOf[[]views.Entry](l.product, "ledger", person, "--limit", "10000") {
		charged, held, returned = charged+ms(e.ChargedSeconds), held+ms(e.HeldSeconds), returned+ms(e.ReturnedSeconds)
		if e.Kind == "settle" {
			settled++
			held -= ms(e.HeldSeconds)
		}
	}
	if charged != want || settled != leases || held != charged+returned {
		l.t.Errorf("ledger of %s: %d settlements, held %d ms, charged %d ms, returned %d ms; want %d and %d ms charged", person, settled, held, charged, returned, leases, want)
	}
}

// wantUsage waits until /metrics has what each Space uses on its node.
func (l *movesLab) wantUsage() {
	l.t.Helper()
	for _, name := range movedSpaces {
		eventually(l.t, name+" has a memory, processes, a time of CPU and a disk", patience, func() bool {
			series := l.metrics()
			of := func(metric string) float64 { return series[fmt.Sprintf(`spacehost_space_%s{space=%q}`, metric, name)] }
			return of("memory_bytes") > 10<<20 && of("processes") >= 1 && of("cpu_seconds_total") > 0.1 && of("disk_bytes") > 0
		})
	}
}

// wantKeptAfterCrash kills the front. The next one takes each Space over where it runs, although both nodes may run it.
func (l *movesLab) wantKeptAfterCrash() {
	l.t.Helper()
	before := map[string]views.Space{}
	for _, name := range movedSpaces {
		before[name] = l.space(name)
	}
	l.kill()
	l.start()
	for _, name := range movedSpaces {
		eventually(l.t, name+" runs again", patience, func() bool { return l.space(name).Stage == "RUNNING" })
		if now := l.space(name); now.Node != before[name].Node || now.PID != before[name].PID {
			l.t.Errorf("%s runs on %s as %d, before the crash on %s as %d", name, now.Node, now.PID, before[name].Node, before[name].PID)
		}
	}
}
