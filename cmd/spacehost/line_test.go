package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/lease"
	"spacehost/internal/people"
)

const lineDir = "testdata/spaces/line"

// gate is a file in the home of each Space; calls of /hold wait until it exists.
const gate = "~/go"

// openGate lets the calls of /hold return.
func (p *product) openGate() {
	p.t.Helper()
	for _, s := range p.Spaces {
		if err := os.WriteFile(filepath.Join(p.stateOfSpaces(), "spaces", s.Name, "home", "go"), nil, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

// awaitWaiting waits until n leases are waiting, and returns them by rank.
func (p *product) awaitWaiting(n int) (waiting []lease.Snapshot) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d leases wait", n), patience, func() bool {
		waiting = slices.DeleteFunc(p.leases().Open, func(l lease.Snapshot) bool { return l.Forecast == nil })
		return len(waiting) == n
	})
	slices.SortFunc(waiting, func(a, b lease.Snapshot) int { return a.Rank - b.Rank })
	return waiting
}

// awaitEnded waits until n leases have ended, and returns them newest first. A Lease ends a moment after its call's response.
func (p *product) awaitEnded(n int) (ended []lease.Past) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d leases have ended", n), patience, func() bool {
		ended = p.leases().Ended
		return len(ended) == n
	})
	return ended
}

// awaitLogs waits until the call's visitor has received each of the messages, in this order.
func (k call) awaitLogs(words ...string) {
	k.c.t.Helper()
	for _, words := range words {
		for read := ""; !strings.Contains(read, words); {
			r := k.c.reply(k.ch, patience)
			if r.Error != nil || r.Value != nil {
				k.c.t.Fatalf("the call ended with %+v before the message %q", r, words)
			}
			read = r.Log
		}
	}
}

// TestProIsGrantedBeforeFree submits a pro call after a free one while the only GPU is in use. The pro call is granted first, and
// both visitors receive their forecast.
func TestProIsGrantedBeforeFree(t *testing.T) { eachLine(t, proIsGrantedBeforeFree) }

func proIsGrantedBeforeFree(t *testing.T, line string) {
	p := runOn(t, line, lineDir, "--queue-timeout", "10m") // no wait of this test reaches it
	runCLI(t, p, "user", "add", "ada", "--tier", "pro")
	ada := p.clientAs(p.URL, strings.TrimSpace(runCLI(t, p, "token", "create", "ada")))
	free := p.client()
	holder := free.submit("/hold", gate)
	active := awaitActive(t, p)
	second := free.submit("/ten")
	p.awaitWaiting(1)
	first := ada.submit("/ten")
	both := p.awaitWaiting(2)
	if both[0].Identity != "user:ada" || both[0].Tier != "pro" || both[1].Identity != "local" {
		t.Errorf("waiting leases: %+v and %+v; want ada's first", both[0], both[1])
	}
	for i, seconds := range []float64{120, 130} { // the holder declares two minutes, ada ten seconds
		if f := both[i].Forecast; f.Start == nil || f.Start.Sub(active).Seconds() != seconds || f.Reason != lease.Node || f.Limit != "" {
			t.Errorf("number %d: %+v, want its start %g s after %s, and no limit", i+1, f, seconds, active)
		}
	}
	if out := runCLI(t, p, "lease"); !strings.Contains(out, "number 1 in line; starts in ") || !strings.Contains(out, "number 2 in line; starts in ") {
		t.Errorf("spacehost lease:\n%s", out)
	}
	if out := runCLI(t, p, "lease", "--json"); !strings.Contains(out, `"rank":1,"reason":"node","earliestStart":"20`) {
		t.Errorf("spacehost lease --json:\n%s", out)
	}
	second.awaitLogs("Waiting for a GPU to become available", "Your call is number 2 in line for a GPU. If the calls before it use all their declared time, it starts in ")
	first.awaitLogs("Your call is number 1 in line for a GPU.")
	p.openGate()
	for name, k := range map[string]call{"the holder": holder, "the first": first, "the second": second} {
		if r := k.wait(); r.Failed {
			t.Errorf("%s: %s", name, r.Err)
		}
	}
	if ended := p.awaitEnded(3); ended[0].Identity != "local" || ended[1].Identity != "user:ada" {
		t.Errorf("ended %+v; want ada's before the second of the local visitor", ended)
	}
}

// TestConcurrency checks calls that are blocked by the limit of their Space or of their user. Their visitors read the reason, and
// later calls overtake them.
func TestConcurrency(t *testing.T) {
	token, hash := people.NewToken()
	p := serveFile(t, fmt.Sprintf(`
gpus: {machine: mock:4xH200, per_space: 1}
tiers: {student: {quota: 10m, concurrency: 1}, unauthenticated: {unlimited: true}}
queue_timeout: 10m
console: 127.0.0.1:0
spaces:
  - {folder: %[1]s, address: "127.0.0.1:0", python: %[2]s}
  - {folder: %[1]s, name: wide, concurrency: 0, address: "127.0.0.1:0", python: %[2]s}
people: [{name: ada, tier: student, tokens: [%[3]s]}]
`, absolute(t, lineDir), environment(t), hash))
	narrow, wide, adas := p.client(), p.clientAt(p.Spaces[1].URL), p.clientAs(p.Spaces[1].URL, token)
	running := map[string]call{"the first of the narrow Space": narrow.submit("/hold", gate), "ada's first": adas.submit("/hold", gate)}
	eventually(t, "two calls are running", patience, func() bool { return states(p.leases())[lease.Active] == 2 })
	behind := map[string]call{"the second of the narrow Space": narrow.submit("/ten"), "ada's second": adas.submit("/ten")}
	limits := map[lease.Limit]string{}
	for _, l := range p.awaitWaiting(2) {
		limits[l.Limit] = l.Space
		if l.Reason != lease.Concurrency || l.Start == nil {
			t.Errorf("%s waits for %s, %+v", l.Lease, l.Reason, l.Forecast)
		}
	}
	if want := map[lease.Limit]string{lease.OfSpace: "line", lease.OfIdentity: "wide"}; !reflect.DeepEqual(limits, want) {
		t.Errorf("waiting leases are blocked by limits %v, want %v", limits, want)
	}
	wide.ok("/ten") // blocked leases do not delay it
	if ended := p.awaitEnded(1); ended[0].Space != "wide" || len(p.leases().Open) != 4 {
		t.Errorf("open: %+v, ended: %+v; want the wide Space's call ended and four leases open", p.leases().Open, ended)
	}
	for _, k := range behind {
		k.awaitLogs("Waiting for a GPU slot on this Space", "At most 1 of ")
	}
	p.openGate()
	for _, calls := range []map[string]call{running, behind} {
		for name, k := range calls {
			if r := k.wait(); r.Failed {
				t.Errorf("%s: %s", name, r.Err)
			}
		}
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// serveFile runs `spacehost serve` on a configuration.
func serveFile(t *testing.T, text string) *product {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, t.TempDir(), "serve", "--config", file)
	t.Cleanup(p.stop)
	p.awaitReady()
	return p
}

// TestHardware checks which GPU `spaces` detects, and the duration that it declares on it.
func TestHardware(t *testing.T) {
	const rtx = `["NVIDIA RTX PRO 6000 Blackwell Server Edition", 101973950464, "12.0", %d, 1.5, "NVIDIA RTX PRO 6000 Blackwell Server Edition", 101973950464]`
	for _, row := range []struct {
		args     []string
		want     string
		declared float64
	}{
		{nil, `["NVIDIA H200", 74625056768, "9.0", 60, 1, "NVIDIA H200", 74625056768]`, 10},
		{[]string{"--hardware", "rtx-pro-6000"}, fmt.Sprintf(rtx, 188), 15},
		{[]string{"--gpus", "mock:1xRTX-PRO-6000", "--variable", "ZEROGPU_CUDA_MULTI_PROCESSOR_COUNT=7"}, fmt.Sprintf(rtx, 7), 15},
		{[]string{"--gpus", "mock:1xA100"}, fmt.Sprintf(rtx, 188), 15}, // ZeroGPU never had one
		{[]string{"--gpus", "mock:2xH200-MIG-3g.71gb"}, `["NVIDIA H200 MIG 3g.71gb", 74625056768, "9.0", 60, 1, "NVIDIA H200 MIG 3g.71gb", 74625056768]`, 10},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			p := runProduct(t, lineDir, row.args...)
			c := p.client()
			var got, want any
			if err := json.Unmarshal(c.call("/seen").Value, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(row.want), &want); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v (%v)", got, want, err)
			}
			c.ok("/ten")
			if ended := p.awaitEnded(1); ended[0].DeclaredSeconds != row.declared {
				t.Errorf("ended %+v, want %g s declared", ended, row.declared)
			}
		})
	}
}
