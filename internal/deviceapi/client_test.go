package deviceapi

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"spacehost/internal/lease"
)

// whatTheClientMakesOfIt: after each answer [X-Authenticated, X-Queuing-Reason, X-Approve-Result].
const whatTheClientMakesOfIt = `
startup: 200
at once: granted idle=False index=0 uuid=GPU-fake-0 token=32 [regular None approved]
waiting: 0
queued: ping [pro node approved]
waiting: 1
release: 200
then: succeeded
which is: granted idle=False index=0 uuid=GPU-fake-0 token=32
allow: 200
allow a stranger: 403
too long: failed [regular node approved]
pings meanwhile: True
illegal: left=210 wait=-1 [regular None illegal-duration]
negative: left=0 wait=-1 [regular None illegal-duration]
hold: ping [None node approved]
exceeded: left=20 wait=101 [None None quota-exceeded]
hung up: 0
ended: 401 [None None None]
release: 200
release again: 404
`

// TestRealClient lets the client of the `spaces` package talk to us: it is the contract.
func TestRealClient(t *testing.T) {
	python := os.Getenv("SPACEHOST_TEST_PYTHON")
	if python == "" {
		t.Skip("SPACEHOST_TEST_PYTHON does not name an interpreter that has spaces and httpx: the real client was not tried")
	}
	h := newHouse(t, func(c *lease.Config) { c.QueueTimeout = time.Second })
	h.api.times = times{soon: 200 * time.Millisecond, ping: 20 * time.Millisecond, hangUp: 10 * time.Second, settle: time.Second}
	h.listen()
	h.processes.Start("demo", 100)
	h.processes.Start("other", 200)
	h.events.end("event-ended")
	command := exec.CommandContext(t.Context(), python, "testdata/client.py", h.token("ada", "free", "event-ada"),
		h.token("ben", "pro", "event-ben"), h.token("cy", "unauthenticated", "event-cy"), h.token("ada", "free", "event-ended"))
	command.Env = append(os.Environ(), "SPACES_ZERO_DEVICE_API_URL="+h.server.URL+h.path, "NO_PROXY=127.0.0.1")
	said, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if got, want := strings.TrimSpace(string(said)), strings.TrimSpace(whatTheClientMakesOfIt); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
