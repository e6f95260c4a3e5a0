package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/people"
	"spacehost/internal/space"
	"spacehost/internal/views"
)

const hungSpaces = `
liveness: {after: 5s, restart_after: 5s}
people: [{name: ada, tier: pro, tokens: [HASH]}]
spaces:
  - {folder: LEASES, name: kept, address: "127.0.0.1:0", python: PYTHON}
`

// TestHungSpace stops the process of a Space during a GPU call: the operator reads it everywhere, the Space restarts without a
// drain, the cut call is not charged, and the waiting one continues.
func TestHungSpace(t *testing.T) {
	t.Parallel()
	token, hash := people.NewToken()
	l := serveReload(t, hungSpaces, "HASH", hash)
	before := l.space("kept")
	client := l.clientAs(before.URL, token)
	cut := client.submit("/minute", 50)
	eventually(t, "the call has a GPU", patience, l.isUsingGPU)
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is UNRESPONSIVE", patience, func() bool { return l.space("kept").Stage == string(space.Unresponsive) })
	if health := l.health(); health.Status != "degraded" || len(health.Unresponsive) != 1 || health.Unresponsive[0] != "kept" ||
		health.Spaces[0].Reason != "The Space does not answer at the moment." {
		t.Errorf("/healthz for everybody: %+v", health)
	}
	if code, out, errOut := l.cli("explain", "user:ada", "--space", "kept"); code != 0 || !strings.Contains(out, "the Space does not answer (UNRESPONSIVE), so its calls wait") {
		t.Errorf("explain: %d %s%s", code, out, errOut)
	}
	waiting := client.submit("/five", 0)
	const text = "kept: UNRESPONSIVE: It has not answered for 5"
	eventually(t, "the screen shows it", patience, func() bool { return strings.Contains(l.text(), text) })
	if !strings.Contains(l.text(), ": its process is stopped (SIGSTOP), at app.py:") || !strings.Contains(l.text(), "It is started again if it does not answer within 5s.") {
		t.Errorf("the screen shows %s", l.text())
	}
	if r := cut.wait(); !r.Failed || !strings.HasPrefix(r.Err, "The Space did not answer for 1") || !strings.HasSuffix(r.Err, "s, so the host has restarted it.") {
		t.Errorf("the running call: %+v", r)
	}
	if r := waiting.wait(); r.Failed {
		t.Errorf("the waiting call: %+v", r)
	}
	eventually(t, "the Space runs again", patience, func() bool {
		now := l.space("kept")
		return now.PID != before.PID && now.Stage == string(space.Running) && l.health().Status == "ok"
	})
	reasons := l.ledgerReasons("user:ada")
	if charged, settled := reasons["space unresponsive"]; !settled || charged != 0 || len(reasons) != 2 {
		t.Errorf("the ledger has %v", reasons)
	}
	if got := l.metrics()[`spacehost_space_unresponsive_total{cause="interpreter",space="kept"}`]; got != 1 {
		t.Errorf("the metric is %g", got)
	}
	if code, out, errOut := l.cli("logs", "kept"); code != 0 || !strings.Contains(out, "Stacks of all threads:") || !strings.Contains(out, `/app.py", line `) {
		t.Errorf("logs: %d %s%s", code, out, errOut)
	}
}

// health returns /healthz of the console.
func (l *reloadLab) health() (h views.Health) {
	l.t.Helper()
	answer, err := http.Get(l.Console + "/healthz")
	if err != nil {
		l.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil {
		err = json.Unmarshal(body, &h)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}
