package deviceapi

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/build"
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

// interpreter is one with the real spaces package: $SPACEHOST_TEST_PYTHON, or one that the product's own builder
// makes and keeps between runs, the same as the end-to-end tests use.
func interpreter(t *testing.T) string {
	t.Helper()
	if python := os.Getenv("SPACEHOST_TEST_PYTHON"); python != "" {
		return python
	}
	cache := os.Getenv("SPACEHOST_TEST_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(base, "spacehost-test")
	}
	b := build.New(build.Config{Dir: filepath.Join(cache, "environments")})
	env, err := b.Build(t.Context(), build.Spec{Gradio: "6.31.0", Dir: filepath.Join("..", "..", "examples", "hello-zerogpu")}, false)
	if err != nil {
		t.Fatal(err)
	}
	return env.Python
}

// means are how the real client speaks HTTP: by httpx, and by what the runner puts in its place.
var means = map[string]string{"httpx": "", "runner": filepath.Join("..", "..", "worker", "runner")}

func python(t *testing.T, interpreter, means string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), interpreter, append([]string{"-B"}, args...)...)
	command.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "SPACEHOST_RUNNER="+means)
	return command
}

// TestRealClient lets the client of the `spaces` package talk to us: it is the contract.
func TestRealClient(t *testing.T) {
	interpreter := interpreter(t)
	for name, means := range means {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, func(c *lease.Config) { c.QueueTimeout = time.Second })
			h.api.times = times{soon: 200 * time.Millisecond, ping: 20 * time.Millisecond, hangUp: 10 * time.Second, settle: time.Second}
			h.listen()
			h.processes.Start("demo", 100)
			h.processes.Start("other", 200)
			h.events.end("event-ended")
			command := python(t, interpreter, means, "testdata/client.py", h.token("ada", "free", "event-ada"),
				h.token("ben", "pro", "event-ben"), h.token("cy", "unauthenticated", "event-cy"), h.token("ada", "free", "event-ended"))
			command.Env = append(command.Env, "SPACES_ZERO_DEVICE_API_URL="+h.server.URL+h.path)
			said, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if got, want := strings.TrimSpace(string(said)), strings.TrimSpace(whatTheClientMakesOfIt); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestRunnersClientDoesAsHTTPXDoes: it asks in the same words, and takes answers that are whole, in pieces, cut off at each place,
// to two threads, too late, and from nobody.
func TestRunnersClientDoesAsHTTPXDoes(t *testing.T) {
	interpreter, said := interpreter(t), map[string]string{}
	for name, means := range means {
		out, err := python(t, interpreter, means, "testdata/manners.py").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		said[name] = string(out)
	}
	if said["runner"] != said["httpx"] || !strings.Contains(said["httpx"], "a stream cut between: ping RemoteProtocolError") || !strings.Contains(said["httpx"], "never: ReadTimeout") {
		t.Errorf("the runner's client says\n%s\nhttpx\n%s", said["runner"], said["httpx"])
	}
}
