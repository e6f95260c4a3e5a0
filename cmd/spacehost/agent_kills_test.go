package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// requireKills skips a test that runs for minutes, except in `make kills`.
func requireKills(t *testing.T) {
	t.Helper()
	if os.Getenv("SPACEHOST_KILLS") == "" {
		t.Skip("it runs for minutes: make kills")
	}
}

// kills returns how many kills TestKills and TestNodeKills make (`make kills`).
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("SPACEHOST_KILLS")); err == nil {
		return n
	}
	return 6
}

// TestKills kills the host, the agent or both at random points while clients call. Each lease is settled once, no process is left
// over, and the Space runs again after each kill.
func TestKills(t *testing.T) {
	t.Parallel()
	l := serveAgentLab(t, agentSpaces)
	load := startKilledLoad(t, l.space("kept").URL, l.token)
	counts := map[string]int{}
	for n := range kills() {
		load.awaitAnswer(t)
		load.pause(t.Context(), randomPause())
		kind := killKinds[n%len(killKinds)]
		pid := l.space("kept").PID
		kind.kill(l)
		if kind.keeps {
			l.wantKept("kept", pid)
		}
		l.awaitOneStart()
		counts[kind.name]++
		if t.Failed() {
			t.Fatalf("after %d kills, the last of %s", n+1, kind.name)
		}
	}
	load.awaitAnswer(t)
	load.end()
	eventually(t, "all leases are settled", killPatience, func() bool { return len(l.leases().Open) == 0 })
	l.signal(syscall.SIGINT)
	l.wantNothingLeft("SIGINT")
	l.wantExactLedger(0)
	t.Logf("KILLS %v; %s", counts, load)
	logSettlements(t, l.database())
}

// randomPause returns the time until the next kill.
func randomPause() time.Duration { return time.Duration(rand.IntN(1500)) * time.Millisecond }

// killKinds are used in turn.
var killKinds = []struct {
	name  string
	keeps bool // the Space goes on in the same process
	kill  func(l *agentLab)
}{
	{"the host", true, func(l *agentLab) { l.kill(); l.start() }},
	{"the agent", false, func(l *agentLab) {
		pid := l.space("kept").PID
		_ = syscall.Kill(l.agent(), syscall.SIGKILL)
		l.awaitAnother("kept", pid)
	}},
	{"the host at a failpoint", false, func(l *agentLab) { l.killAtFailpoint() }},
	{"the host and the agent", false, func(l *agentLab) {
		agent := l.agent()
		l.kill()
		_ = syscall.Kill(agent, syscall.SIGKILL)
		l.start()
	}},
	{"the host by SIGTERM", true, func(l *agentLab) { l.endWithoutDrain() }},
	{"the agent by SIGTERM", false, func(l *agentLab) {
		pid := l.space("kept").PID
		_ = syscall.Kill(l.agent(), syscall.SIGTERM)
		l.awaitAnother("kept", pid)
	}},
}

// killAtFailpoint kills the host, lets the next one kill itself at a random write to its database, and starts one more.
func (l *reloadLab) killAtFailpoint() {
	l.t.Helper()
	l.kill()
	p := startCommandWith(l.t, []string{fmt.Sprintf("%s=%d", killAt, 1+rand.IntN(80))}, l.State, "serve", "--config", l.file)
	awaitClosed(l.t, "the host has killed itself", p.ended)
	l.start()
}

// endWithoutDrain ends the host by two signals, and starts the next one.
func (l *reloadLab) endWithoutDrain() {
	l.t.Helper()
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	awaitClosed(l.t, "the host has exited", l.ended)
	l.start()
}

// awaitAnother waits until a Space runs in another process.
func (l *reloadLab) awaitAnother(name string, pid int) {
	l.t.Helper()
	eventually(l.t, name+" runs in another process", killPatience, func() bool { s := l.space(name); return s.Stage == "RUNNING" && s.PID != pid })
}

// awaitOneStart waits until all processes of the state folder belong to one start, and one agent is left.
func (l *agentLab) awaitOneStart() {
	l.t.Helper()
	eventually(l.t, "one start is left", killPatience, func() bool { return len(startsOf(l.State)) == 1 && len(l.agents()) == 1 })
}

// startsOf lists the starts of which processes run on a state folder.
func startsOf(state string) map[string]bool {
	starts := map[string]bool{}
	for pid := range processesOf(state) {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have exited
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			if marker, found := strings.CutPrefix(string(entry), "ZEROGPU_PROC_SELF_CGROUP_PATH="); found {
				starts[marker] = true
			}
		}
	}
	return starts
}

// killedLoad counts the results of constant calls, of which some are cut off.
type killedLoad struct {
	token, url             string
	client                 *http.Client
	completed, failed, cut atomic.Int64
	end                    func() // returns when no call is left
}

// startKilledLoad calls the Space testdata/spaces/kept, as several clients at the same time.
func startKilledLoad(t *testing.T, url, token string) *killedLoad {
	k := &killedLoad{token: token, url: url, client: &http.Client{Timeout: patience}}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	k.end = func() { cancel(); callers.Wait() }
	for _, call := range []struct{ endpoint, data string }{
		{"slow", "[0.1]"}, {"on_gpu", "[0.3]"}, {"on_gpu", "[0.3]"}, {"on_gpu", "[1.5]"}, {"on_gpu", "[0.01]"}, {"overstay", "[]"},
	} {
		callers.Go(func() {
			for ctx.Err() == nil {
				k.once(ctx, call.endpoint, call.data)
			}
		})
	}
	return k
}

func (k *killedLoad) String() string {
	return fmt.Sprintf("calls that returned a result %d, that ended with an error %d, that were cut off or refused %d", k.completed.Load(), k.failed.Load(), k.cut.Load())
}

// once makes one call.
func (k *killedLoad) once(ctx context.Context, endpoint, data string) {
	at := k.url + "/gradio_api/call/" + endpoint
	var called struct {
		ID string `json:"event_id"`
	}
	answer, err := k.send(ctx, http.MethodPost, at, `{"data":`+data+`}`)
	if err != nil || json.Unmarshal(answer, &called) != nil || called.ID == "" {
		k.cut.Add(1)
		k.pause(ctx, 50*time.Millisecond)
		return
	}
	stream, _ := k.send(ctx, http.MethodGet, at+"/"+called.ID, "")
	switch {
	case bytes.Contains(stream, []byte("event: complete")):
		k.completed.Add(1)
	case bytes.Contains(stream, []byte("event: error")):
		k.failed.Add(1)
		k.pause(ctx, 50*time.Millisecond)
	default:
		k.cut.Add(1)
		k.pause(ctx, 50*time.Millisecond)
	}
}

func (k *killedLoad) send(ctx context.Context, method, url, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+k.token)
	answer, err := k.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func (k *killedLoad) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// awaitAnswer waits until calls return results.
func (k *killedLoad) awaitAnswer(t *testing.T) {
	t.Helper()
	before := k.completed.Load()
	eventually(t, "calls return results", killPatience, func() bool { return k.completed.Load() > before })
}

// logSettlements prints the settled leases by reason.
func logSettlements(t *testing.T, db *sql.DB) {
	for _, s := range settlements(t, db) {
		t.Logf("KILLS settled as %q: %d, charged %d ms", s.reason, s.leases, s.charged)
	}
}
