package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/migrations"
)

// steadyFile is the configuration of TestChangesUnderLoad. No change names the Space "calm".
const steadyFile = `
tiers: {lab: {unlimited: true}}
people:
  - {name: ada, tier: lab, tokens: [ADA]}
spaces:
  - {folder: STEADY, name: calm, address: CALM, python: PYTHON}
  - {folder: STEADY, name: named, address: NAMED, python: PYTHON}
  - {folder: STEADY, name: open, address: OPEN, python: PYTHON}
`

// steadyChanges are edits of steadyFile, one of each kind. Each is applied on top of the previous ones.
var steadyChanges = []struct{ old, new, printed string }{
	{"name: named,", "name: named, variables: {COLOR: red},", "variables.COLOR none -> set"},
	{"name: named,", "name: named, secrets: {KEY: x},", "secrets.KEY none -> set"},
	{"name: open,", "name: open, concurrency: 8,", "concurrency none -> 8"},
	{"name: open,", "name: open, visibility: private,", "visibility public -> private"},
	{"visibility: private,", "visibility: private, members: [ada],", "members all people -> ada"},
	{"people:", "people:\n  - {name: ben, tier: lab, tokens: [BEN]}", "+ person ben"},
	{"tokens: [BEN]", "tokens: []", "tokens 1 removed -> 0 added"},
	{"unlimited: true}}", "unlimited: true}, guest: {quota: 1h}}", "+ tier guest"},
	{"spaces:", "spaces:\n  - {folder: STEADY, name: added, address: ADDED, python: PYTHON}", "+ space added"},
	{"  - {folder: STEADY, name: added, address: ADDED, python: PYTHON}\n", "", "- space added"},
}

// TestChangesUnderLoad calls three Spaces constantly, while the configuration changes ten times, a Space restarts three times, and
// the host stops and starts. It prints the longest gaps between answers. In full it has 42 clients (`make fire`).
func TestChangesUnderLoad(t *testing.T) {
	if !fire {
		t.Parallel()
	}
	steady, err := filepath.Abs("testdata/spaces/steady")
	if err != nil {
		t.Fatal(err)
	}
	token, hash := people.NewToken()
	_, other := people.NewToken()
	l := serveReload(t, steadyFile, "STEADY", steady, "ADA", hash, "BEN", other,
		"CALM", freeAddress(t), "NAMED", freeAddress(t), "OPEN", freeAddress(t), "ADDED", freeAddress(t))
	perSpace := 4
	if fire {
		perSpace = 14
	}
	load := &steadyLoad{t: t, token: token}
	load.reset()
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for _, name := range []string{"calm", "named", "open"} {
		url := l.space(name).URL
		for n := range perSpace {
			endpoint := "quick"
			if n%4 == 3 {
				endpoint = "on_gpu"
			}
			callers.Go(func() { load.call(ctx, name, url, endpoint) })
		}
	}
	eventually(t, "all Spaces answer", patience, func() bool { return load.answered("calm", "named", "open") })
	load.reset()

	text := steadyFile
	for n, change := range steadyChanges {
		text = strings.Replace(text, change.old, change.new, 1)
		l.write(t, text)
		if code, out, errOut := l.cli("reload"); code != 0 || !strings.Contains(out, change.printed) {
			t.Errorf("reload %d: exit code %d, want %q in %s%s", n, code, change.printed, out, errOut)
		}
		l.awaitAnswers(load)
	}
	for range 3 {
		before := l.space("named").PID
		if code, _, errOut := l.cli("space", "restart", "named"); code != 0 {
			t.Errorf("space restart: %s", errOut)
		}
		eventually(t, "the Space is another process", patience, func() bool { now := l.space("named"); return now.PID != 0 && now.PID != before })
		l.awaitAnswers(load)
	}
	calm := load.gap("calm")

	load.stopping.Store(true)
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.ended:
	case <-time.After(patience):
		t.Fatal("the host does not end")
	}
	again := startCommandWith(t, nil, l.State, "serve", "--config", l.file)
	t.Cleanup(again.kill)
	again.awaitReady()
	load.stopping.Store(false)
	load.reset()
	l.product = again
	l.awaitAnswers(load)
	cancel()
	callers.Wait()
	again.stop()

	t.Logf("calls %d, of them with a sentence instead of a result %d, refused while the host was stopped %d; longest gap between answers of a Space that no change names: %s",
		load.calls.Load(), load.failed.Load(), load.refused.Load(), calm)
	if load.calls.Load() < 100 {
		t.Errorf("only %d calls", load.calls.Load())
	}
	wantExactLedger(t, l.State+"/spacehost.db", 0)
	wantFreeWhereTheHostEnded(t, l.State+"/spacehost.db")
}

// awaitAnswers waits until all Spaces run and have answered again.
func (l *reloadLab) awaitAnswers(load *steadyLoad) {
	l.t.Helper()
	names := []string{"calm", "named", "open"}
	eventually(l.t, "all Spaces run", patience, func() bool {
		for _, name := range names {
			if l.space(name).Stage != string(space.Running) {
				return false
			}
		}
		return true
	})
	load.forget()
	eventually(l.t, "all Spaces answer", patience, func() bool { return load.answered(names...) })
}

// steadyLoad counts the results of constant calls.
type steadyLoad struct {
	t                      *testing.T
	token                  string
	stopping               atomic.Bool // the host ends: calls may be refused
	calls, failed, refused atomic.Int64

	mu      sync.Mutex
	fresh   map[string]bool
	last    map[string]time.Time // of a Space's last answer
	longest map[string]time.Duration
}

// call calls an endpoint until ctx ends, with a pause between the calls.
func (s *steadyLoad) call(ctx context.Context, name, url, endpoint string) {
	for ctx.Err() == nil {
		s.once(name, url+"/gradio_api/call/"+endpoint)
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// once makes one call. A call that was accepted must end with a result or a sentence.
func (s *steadyLoad) once(name, url string) {
	stopping := s.stopping.Load()
	var called struct {
		ID string `json:"event_id"`
	}
	status, body, err := s.send(http.MethodPost, url, `{"data":["hi"]}`)
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &called) != nil {
		if stopping || s.stopping.Load() {
			s.refused.Add(1)
		} else {
			s.t.Errorf("%s: not accepted: %d %s %v", name, status, body, err)
		}
		return
	}
	s.calls.Add(1)
	status, body, err = s.send(http.MethodGet, url+"/"+called.ID, "")
	switch {
	case bytes.Contains(body, []byte("event: complete\ndata: [\"hi\"]")):
		s.note(name)
	case hasSentence(body):
		s.failed.Add(1)
	case s.stopping.Load() && status == 0:
		s.refused.Add(1) // the host ended before the stream was opened
	default:
		s.t.Errorf("%s: a call was lost without a sentence: %d %q %v", name, status, body, err)
	}
}

// hasSentence reports whether a stream ends with an error in words.
func hasSentence(stream []byte) bool {
	_, data, found := bytes.Cut(stream, []byte("event: error\ndata: "))
	var failed struct{ Error string }
	return found && json.Unmarshal(data, &failed) == nil && strings.Contains(failed.Error, " ")
}

func (s *steadyLoad) send(method, url, body string) (status int, answer []byte, err error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+s.token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func (s *steadyLoad) note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.last[name]; ok {
		s.longest[name] = max(s.longest[name], now.Sub(last))
	}
	s.last[name] = now
	s.fresh[name] = true
}

func (s *steadyLoad) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = map[string]bool{}
}

// reset forgets the gaps.
func (s *steadyLoad) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh, s.last, s.longest = map[string]bool{}, map[string]time.Time{}, map[string]time.Duration{}
}

func (s *steadyLoad) answered(names ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if !s.fresh[name] {
			return false
		}
	}
	return true
}

func (s *steadyLoad) gap(name string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest[name]
}

// wantFreeWhereTheHostEnded checks that no lease that the host has ended is charged.
func wantFreeWhereTheHostEnded(t *testing.T, path string) {
	t.Helper()
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range settlements(t, db) {
		t.Logf("settled as %q: %d, charged %d ms", s.reason, s.leases, s.charged)
		if s.charged > 0 && (strings.Contains(s.reason, "restarted by") || strings.Contains(s.reason, "host stopped") || strings.Contains(s.reason, "worker died")) {
			t.Errorf("%d calls that the host ended as %q are charged %d ms", s.leases, s.reason, s.charged)
		}
	}
}

// settlement counts the leases that were settled for one reason, and what they were charged in milliseconds.
type settlement struct {
	reason          string
	leases, charged int
}

// settlements returns the settled leases of a ledger by reason.
func settlements(t *testing.T, db *sql.DB) (found []settlement) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT reason, count(*), sum(charged_ms) FROM ledger WHERE kind = 'settle' GROUP BY reason ORDER BY reason`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s settlement
		if err := rows.Scan(&s.reason, &s.leases, &s.charged); err != nil {
			t.Fatal(err)
		}
		found = append(found, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}
