package main

import (
	"context"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"spacehost/internal/lease"
)

// TestGPUCallsWithNewSpaces runs the tests of GPU calls with the pre-release of spaces: every function of the sample (a plain
// call, a generator, progress, a toast, a dynamic duration), a deadline, gr.Error, and a warm worker.
func TestGPUCallsWithNewSpaces(t *testing.T) {
	for _, line := range newSpacesLines() {
		t.Run(line, func(t *testing.T) {
			t.Run("sample", func(t *testing.T) {
				p := sampleOn(t, line)
				if health := p.health().Spaces[0]; !health.Native || health.Why != "" {
					t.Errorf("health: %+v, want native", health)
				}
				pythonClientCallsEveryFunction(t, p)
			})
			t.Run("deadline", func(t *testing.T) { overstayingWorkerIsEnded(t, line) })
			t.Run("gr.Error", func(t *testing.T) { oneWorkerPerSlot(t, line) })
			t.Run("warm", func(t *testing.T) { warmWorker(t, line) })
		})
	}
}

const routesDir = "testdata/spaces/routes"

// TestRoutesChargeTheVisitor calls a GPU function from a plain FastAPI route beside a mounted app. With spaces 0.52, which reads
// the token from the request's headers, the visitor is charged. With 0.51 the Space is.
func TestRoutesChargeTheVisitor(t *testing.T) {
	t.Parallel()
	all := map[string][3]string{}
	for _, line := range newSpacesLines() {
		all[line] = [3]string{"user:ada", "user:bob", "local"}
	}
	if !isNext() {
		all["v6"] = [3]string{"space:routes", "space:routes", "space:routes"}
	}
	for line, payers := range all {
		t.Run(line, func(t *testing.T) {
			p := runOn(t, line, routesDir)
			ada, bob := member(t, p, "ada", "pro"), member(t, p, "bob", "pro")
			signedIn := newVisit(t)
			signedIn.signIn(p, "routes", p.URL, ada)
			for i, visit := range []func() (int, string){
				func() (int, string) {
					answer, body := signedIn.do("GET", p.URL+"/work", "")
					return answer.StatusCode, body
				},
				func() (int, string) {
					return request(t, "GET", p.URL+"/work", "", map[string]string{"Authorization": "Bearer " + bob})
				},
				func() (int, string) { return request(t, "GET", p.URL+"/work", "", nil) },
			} {
				if status, body := visit(); status != http.StatusOK || !strings.HasPrefix(body, `{"worker":`) {
					t.Fatalf("visit %d: %d %s", i, status, body)
				}
				if ended := p.awaitEnded(i + 1); ended[0].Identity != payers[i] || ended[0].ChargedSeconds < 0.1 || ended[0].State != lease.Released {
					t.Errorf("visit %d: %+v, want it charged to %s", i, ended[0], payers[i])
				}
			}
			if got := p.clientAt(p.URL+"/ui").ok("/work", 0); got == "" {
				t.Error("/work of the mounted app: got an empty value")
			}
			if ended := p.awaitEnded(4); ended[0].Identity != "local" {
				t.Errorf("the mounted app: %+v, want it charged to local", ended[0])
			}
		})
	}
}

// TestRoutesOfNewSpaces checks the responses of plain routes with GPU calls, and the ends of their leases.
func TestRoutesOfNewSpaces(t *testing.T) {
	p := runOn(t, newestLine(), routesDir, "--queue-timeout", "3s", "--tier", "unauthenticated")
	get := func(path string) (int, string) { return request(t, "GET", p.URL+path, "", nil) }
	if status, body := get("/count?numbers=3"); status != http.StatusOK || body != "0 1 2 " {
		t.Errorf("a stream: %d %q", status, body)
	}
	if status, body := get("/fail"); status != http.StatusInternalServerError || !strings.HasPrefix(body, `{"detail":{"title":"ZeroGPU worker error","message":"ValueError","worker_traceback":"Traceback`) {
		t.Errorf("an exception: %d %s", status, body)
	}
	const tooLong = `{"detail":{"title":"ZeroGPU illegal duration","message":"The requested GPU duration (300s) is larger than the maximum allowed`
	if status, body := get("/too_long"); status != http.StatusTooManyRequests || !strings.HasPrefix(body, tooLong) {
		t.Errorf("an illegal duration: %d %s", status, body)
	}
	webSocket(t, p)
	p.awaitEnded(3)
	t.Run("quota", func(t *testing.T) { routesAreRefused(t, p) })
	t.Run("disconnect", func(t *testing.T) { routesEndWithTheirClient(t, p) })
	t.Run("503", func(t *testing.T) {
		held := make(chan int)
		go func() { status, _ := get("/work?seconds=5"); held <- status }()
		awaitActive(t, p)
		const noGPU = `{"detail":{"title":"ZeroGPU queue timeout","message":"No GPU was available after 60s`
		if status, body := get("/work"); status != http.StatusServiceUnavailable || !strings.HasPrefix(body, noGPU) {
			t.Errorf("no GPU in time: %d %s", status, body)
		}
		if status := <-held; status != http.StatusOK {
			t.Errorf("the call before it: %d", status)
		}
	})
}

// webSocket calls a GPU function through a WebSocket route.
func webSocket(t *testing.T, p *product) {
	t.Helper()
	const script = "import sys\nfrom websockets.sync.client import connect\nwith connect(sys.argv[1]) as one:\n    print(one.recv())"
	out, err := exec.Command(environmentOf(t, p.line), "-c", script, "ws"+strings.TrimPrefix(p.URL, "http")+"/socket").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), `{"worker":`) {
		t.Errorf("a WebSocket: %v: %s", err, out)
	}
}

// routesAreRefused calls a route while another request holds most of the quota.
func routesAreRefused(t *testing.T, p *product) {
	held := make(chan int)
	go func() { status, _ := request(t, "GET", p.URL+"/most", "", nil); held <- status }()
	awaitActive(t, p)
	const exceeded = `{"detail":{"title":"ZeroGPU quota exceeded","message":"You have exceeded your ZeroGPU quota (20s requested vs. `
	if status, body := request(t, "GET", p.URL+"/work", "", nil); status != http.StatusTooManyRequests || !strings.HasPrefix(body, exceeded) {
		t.Errorf("an exceeded quota: %d %s", status, body)
	}
	if status := <-held; status != http.StatusOK {
		t.Errorf("the call that holds the quota: %d", status)
	}
	p.awaitEnded(4)
}

// routesEndWithTheirClient checks that a disconnect ends the lease of the client's request, whether it waits or runs.
func routesEndWithTheirClient(t *testing.T, p *product) {
	visit := func() (leave func()) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/work?seconds=15", nil)
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan struct{})
		go func() {
			defer close(left)
			if answer, err := http.DefaultClient.Do(r); err == nil {
				answer.Body.Close()
			}
		}()
		return func() { cancel(); <-left }
	}
	leaveRunning := visit()
	active := awaitActive(t, p)
	leaveWaiting := visit()
	eventually(t, "the second waits", patience, func() bool { return states(p.leases())[lease.Waiting] == 1 })
	before := len(p.leases().Ended)
	leaveWaiting()
	if ended := p.awaitEnded(before + 1); ended[0].State != lease.Withdrawn || ended[0].Identity != "local" || ended[0].ChargedSeconds != 0 {
		t.Errorf("the waiting call: %+v, want it withdrawn and free", ended[0])
	}
	leaveRunning()
	ended := p.awaitEnded(before + 2)
	if ended[0].State != lease.Revoked || ended[0].ChargedSeconds > time.Since(active).Seconds()+1 || ended[0].ChargedSeconds == 0 {
		t.Errorf("the running call: %+v, want it ended at once and charged until then", ended[0])
	}
	if status, body := request(t, "GET", p.URL+"/work", "", nil); status != http.StatusOK {
		t.Errorf("the next call: %d %s", status, body)
	}
	p.awaitEnded(before + 3)
}

// TestServerRoutesChargeTheVisitor calls a plain route of a gr.Server. Its app keeps native admission with the middleware of
// spaces.
func TestServerRoutesChargeTheVisitor(t *testing.T) {
	t.Parallel()
	p := runOn(t, newestLine(), "testdata/spaces/server-routes")
	ada := map[string]string{"Authorization": "Bearer " + member(t, p, "ada", "pro")}
	if !p.health().Spaces[0].Native {
		t.Errorf("health: %+v, want native", p.health().Spaces[0])
	}
	if status, body := request(t, "GET", p.URL+"/work", "", ada); status != http.StatusOK || body != `"done"` {
		t.Errorf("a route: %d %s", status, body)
	}
	if got := callFirstSpace(t, p, "work", "[]", ada); got != `complete ["done"]` {
		t.Errorf("the API: %s", got)
	}
	for _, one := range p.awaitEnded(2) {
		if one.Identity != "user:ada" {
			t.Errorf("%+v, want it charged to ada", one)
		}
	}
}
