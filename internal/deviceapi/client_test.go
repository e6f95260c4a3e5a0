package deviceapi

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/build/buildtest"
	"spacehost/internal/lease"
)

// clientOutput is the output of testdata/client.py. In brackets: X-Authenticated, X-Queuing-Reason, X-Approve-Result.
const clientOutput = `
startup: 200
at once: granted idle=False index=0 uuid=GPU-fake-0 token=32 [regular None approved]
waiting: 0
queued: ping [pro node approved]
waiting: 1
release: 200
then: succeeded
which is: granted idle=False index=0 uuid=GPU-fake-0 token=32
allow: 200
allow a process of another Space: 403
too long: failed [regular node approved]
pings meanwhile: True
illegal: left=210 wait=-1 [regular None illegal-duration]
negative: left=0 wait=-1 [regular None illegal-duration]
hold: ping [None node approved]
exceeded: left=20 wait=101 [None None quota-exceeded]
disconnected: 0
ended: 401 [None None None]
release: 200
release again: 404
`

// interpreter returns a Python with the real spaces package: $SPACEHOST_TEST_PYTHON, or an environment of package build, which
// is cached between runs and shared with the end-to-end tests.
func interpreter(t *testing.T) string {
	t.Helper()
	if python := os.Getenv("SPACEHOST_TEST_PYTHON"); python != "" {
		return python
	}
	cache, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	b := build.New(build.Config{Dir: filepath.Join(cache, "environments")})
	env, err := b.Build(t.Context(), build.Spec{Gradio: "6.31.0", Dir: filepath.Join("..", "..", "examples", "hello-zerogpu")})
	if err != nil {
		t.Fatal(err)
	}
	return env.Python
}

// transports are the HTTP clients of the real client: httpx, and the runner's replacement for it. The value is SPACEHOST_RUNNER.
var transports = map[string]string{"httpx": "", "runner": filepath.Join("..", "..", "worker", "runner")}

func python(t *testing.T, interpreter, transport string, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), interpreter, append([]string{"-B"}, args...)...)
	command.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "SPACEHOST_RUNNER="+transport)
	return command
}

// TestRealClient runs the client of the real `spaces` package, which defines the API.
func TestRealClient(t *testing.T) {
	interpreter := interpreter(t)
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, func(c *lease.Config) { c.QueueTimeout = time.Second })
			h.api.times = timings{soon: 200 * time.Millisecond, ping: 20 * time.Millisecond, hangUp: 10 * time.Second, settle: time.Second}
			h.listen()
			h.processes.Start("demo", 100)
			h.processes.Start("other", 200)
			h.host.end("event-ended")
			command := python(t, interpreter, transport, "testdata/client.py", h.token("ada", "free", "event-ada"),
				h.token("ben", "pro", "event-ben"), h.token("cy", "unauthenticated", "event-cy"), h.token("ada", "free", "event-ended"))
			command.Env = append(command.Env, "SPACES_ZERO_DEVICE_API_URL="+h.server.URL+h.path)
			output, err := command.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			if got, want := strings.TrimSpace(string(output)), strings.TrimSpace(clientOutput); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestRunnerClientMatchesHTTPX: the runner's HTTP client sends the same requests as httpx, and treats answers alike: complete, in
// pieces, cut off at each place, for two threads, too late, and with no server.
func TestRunnerClientMatchesHTTPX(t *testing.T) {
	interpreter, output := interpreter(t), map[string]string{}
	for name, transport := range transports {
		out, err := python(t, interpreter, transport, "testdata/transports.py").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		output[name] = string(out)
	}
	if output["runner"] != output["httpx"] || !strings.Contains(output["httpx"], "a stream cut between: ping RemoteProtocolError") || !strings.Contains(output["httpx"], "no answer: ReadTimeout") {
		t.Errorf("output with the runner's client\n%s\nwith httpx\n%s", output["runner"], output["httpx"])
	}
}
