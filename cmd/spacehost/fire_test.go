package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/migrations"
)

// fire reports whether the fire tests run in full (`make fire`).
var fire = os.Getenv("SPACEHOST_FIRE") != ""

// fireFunctions are the functions of testdata/spaces/fire. Most misbehave; those that the host must end exceed their second.
var fireFunctions = []string{
	"sleeps", "ignores", "stops", "daemonises", "sheds", "flees", "storms", "crashes", "raises", "waits_at_exit", "dies_before_allow", "good",
}

// TestEveryWorkerIsEnded runs workers that misbehave in every known way, and checks that each Device becomes free again: with
// cgroups if this machine has them, and without.
func TestEveryWorkerIsEnded(t *testing.T) {
	calls := 110 // one in twelve behaves well
	if fire {
		calls = 1100
	}
	for name, disable := range map[string]string{"as this machine allows": "", "without cgroups": "cgroup"} {
		t.Run(name, func(t *testing.T) {
			if !fire { // the full run measures times, and 16 concurrent fork storms are its limit
				t.Parallel()
			}
			burn(t, calls/2, disable)
		})
	}
}

const burningDevices = 16

func burn(t *testing.T, calls int, disable string) {
	tag := fmt.Sprint(1e8 + rand.IntN(9e8))
	p := startProductWith(t, []string{"SPACEHOST_DISABLE=" + disable}, t.TempDir(), "testdata/spaces/fire",
		"--gpus", fmt.Sprintf("mock:%dxH200", burningDevices), "--tier", "unlimited", "--queue-timeout", "90s", "--variable", "FIRE_TAG="+tag)
	t.Cleanup(func() {
		for _, pid := range tagged(tag) { // left by a failed test
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
	})
	t.Cleanup(p.stop)
	p.awaitReady()
	t.Log(p.containment())
	p.burnOne("good")
	http.DefaultClient.CloseIdleConnections()
	before := p.descriptors()

	repair := p.stickMemory(t)
	p.burnAll(calls)
	repair()

	eventually(t, "every device is free or warm", patience, func() bool {
		return !slices.ContainsFunc(controlJSON[[]control.GPU](t, p, "/gpu"), func(g control.GPU) bool {
			return len(g.Processes) > 0 && g.Slots[0].Phase != "warm" || g.Slots[0].Phase != "free" && g.Slots[0].Phase != "warm"
		})
	})
	eventually(t, "all leases are settled", patience, func() bool { return len(p.leases().Open) == 0 })
	p.wantOnlyWarm(t, tag)
	p.burnOne("collect")
	http.DefaultClient.CloseIdleConnections()
	p.wantDescriptors(t, before)
	returns := p.returns()
	p.stop()
	if left := tagged(tag); len(left) > 0 {
		t.Errorf("processes left after the end of the host: %v", left)
	}
	wantExactLedger(t, p.State+"/spacehost.db", calls+1)
	report(t, returns)
}

// burnAll makes the calls of all kinds, as many at a time as there are Devices.
func (p *product) burnAll(calls int) {
	todo := make(chan string, calls)
	for n := range calls {
		todo <- fireFunctions[n%len(fireFunctions)]
	}
	close(todo)
	var callers sync.WaitGroup
	for range burningDevices {
		callers.Go(func() {
			for kind := range todo {
				p.burnOne(kind)
			}
		})
	}
	callers.Wait()
}

// burnOne makes a call over plain HTTP and waits for its end.
func (p *product) burnOne(kind string) {
	answer, err := http.Post(p.api()+"/call/"+kind, "application/json", strings.NewReader(`{"data":[]}`))
	if err != nil {
		p.t.Errorf("%s: %v", kind, err)
		return
	}
	defer answer.Body.Close()
	var called struct {
		ID string `json:"event_id"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&called); err != nil || called.ID == "" {
		p.t.Errorf("%s: %s, %v", kind, answer.Status, err)
		return
	}
	stream, err := http.Get(p.api() + "/call/" + kind + "/" + called.ID)
	if err != nil {
		p.t.Errorf("%s: %v", kind, err)
		return
	}
	defer stream.Body.Close()
	body, err := io.ReadAll(stream.Body)
	if want := map[bool]string{true: "event: complete", false: "event: error"}[kind == "good" || kind == "collect"]; err != nil || !bytes.Contains(body, []byte(want)) {
		p.t.Errorf("%s: the visitor reads %q (%v), want %s", kind, body, err, want)
	}
}

// stickMemory keeps the memory of ended workers on the last Device in use, until the returned function clears the fault.
func (p *product) stickMemory(t *testing.T) (repair func()) {
	uuid := controlJSON[[]control.GPU](t, p, "/gpu")[burningDevices-1].UUID
	setFault := func(kind gpu.FaultKind) {
		if code, _, stderr := p.cli("gpu", "fault", string(uuid), string(kind)); code != 0 {
			t.Fatalf("gpu fault %s: %s", kind, stderr)
		}
	}
	setFault(gpu.FaultMemoryStuck)
	return func() { setFault(gpu.FaultClear) }
}

func (p *product) containment() string {
	for line := range strings.Lines(p.log()) {
		var entry struct{ Msg, By string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "containment" {
			return entry.By
		}
	}
	return "the log does not name the containment"
}

// descriptors counts the host's open descriptors by kind.
func (p *product) descriptors() map[string]int {
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	found := map[string]int{}
	for _, entry := range entries {
		link, _ := os.Readlink(dir + "/" + entry.Name()) // it may be closed by now
		kind, _, _ := strings.Cut(link, ":")
		found[kind]++
	}
	return found
}

// wantDescriptors waits until no more descriptors are open than before, except connections that the Space keeps for its next call.
func (p *product) wantDescriptors(t *testing.T, before map[string]int) {
	t.Helper()
	var more []string
	defer func() {
		if t.Failed() {
			t.Logf("open: %v, before: %v", more, before)
		}
	}()
	eventually(t, "no more descriptors are open than before", patience, func() bool {
		more = nil
		for kind, n := range p.descriptors() {
			switch {
			case kind == "socket":
				n -= burningDevices
			case strings.Contains(kind, "spacehost.db"): // readers open their connections on first use (migrations.OpenReads)
				n -= 4
			}
			if n > before[kind] {
				more = append(more, fmt.Sprint(n, " ", kind))
			}
		}
		return len(more) == 0
	})
}

// wantOnlyWarm waits until the runner and the warm workers are the Space's only processes.
func (p *product) wantOnlyWarm(t *testing.T, tag string) {
	t.Helper()
	may := map[int]bool{spacePID(t, p): true}
	for _, g := range controlJSON[[]control.GPU](t, p, "/gpu") {
		may[g.Slots[0].Worker] = true
	}
	var left []string
	defer func() {
		if t.Failed() {
			t.Logf("processes left: %v", left)
		}
	}()
	eventually(t, "no process is left but the runner and warm workers", patience, func() bool {
		left = tagged(tag)
		for pid, command := range processesOf(p.State) {
			if !may[pid] {
				left = append(left, fmt.Sprint(pid, " ", command))
			}
		}
		return len(left) == 0
	})
}

// tagged lists the pids of processes with the tag in their command line: those that replaced their environment.
func tagged(tag string) (found []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		command, _ := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if bytes.Contains(command, []byte("8640"+tag)) {
			found = append(found, entry.Name())
		}
	}
	return found
}

// returns lists, for each worker, the delay until its Slot was free, counted from the end of its declared time or from its end if
// that was earlier.
func (p *product) returns() (all []time.Duration) {
	declared, active, ended := map[string]time.Duration{}, map[string]time.Time{}, map[string]time.Time{}
	for line := range strings.Lines(p.log()) {
		var entry struct {
			Msg, Declared string
			TS            time.Time
			Worker        int
			Lease         struct{ ID string }
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		switch id := entry.Lease.ID; entry.Msg {
		case "lease waits":
			declared[id], _ = time.ParseDuration(entry.Declared) // written by the host
		case "lease active":
			active[id] = entry.TS
		case "lease ended":
			ended[id] = entry.TS
		case "slot returned":
			if due, ok := ended[id]; ok && entry.Worker != 0 {
				if began, ok := active[id]; ok && began.Add(declared[id]).Before(due) {
					due = began.Add(declared[id])
				}
				all = append(all, entry.TS.Sub(due))
			}
		}
	}
	slices.Sort(all)
	return all
}

// wantExactLedger checks that each lease has one hold and one settlement, which agree with the lease's row and with each other.
func wantExactLedger(t *testing.T, path string, leases int) {
	t.Helper()
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	count := func(query string) (n int) {
		if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	if n := count(`SELECT count(*) FROM leases`); leases > 0 && n != leases {
		t.Errorf("%d leases are stored, want %d", n, leases)
	}
	for what, query := range map[string]string{
		"leases are open":                           `SELECT count(*) FROM leases WHERE ended_at IS NULL`,
		"leases do not have exactly one hold":       `SELECT count(*) FROM leases l WHERE 1 <> (SELECT count(*) FROM ledger e WHERE e.lease_id = l.id AND e.kind = 'hold')`,
		"leases do not have exactly one settlement": `SELECT count(*) FROM leases l WHERE 1 <> (SELECT count(*) FROM ledger e WHERE e.lease_id = l.id AND e.kind = 'settle')`,
		"settlements differ from their lease":       `SELECT count(*) FROM leases l JOIN ledger e ON e.lease_id = l.id AND e.kind = 'settle' WHERE e.charged_ms <> l.charged_ms OR e.charged_ms + e.returned_ms <> l.held_ms`,
		"leases are charged more than their hold":   `SELECT count(*) FROM leases WHERE charged_ms > held_ms OR charged_ms < 0`,
		"active leases are not one run":             `SELECT count(*) FROM leases l WHERE active_at IS NOT NULL AND state NOT IN ('withdrawn', 'unclaimed') AND reason NOT IN ('host stopped', 'machine lost') AND 1 <> (SELECT count(*) FROM runs r WHERE r.lease_id = l.id AND r.identity = l.identity AND r.at <= l.active_at)`,
		"leases without a GPU are a run":            `SELECT count(*) FROM leases l JOIN runs r ON r.lease_id = l.id WHERE state IN ('withdrawn', 'timed out')`,
		"settlements differ from their run":         `SELECT count(*) FROM ledger e WHERE kind = 'settle' AND runs <> (SELECT count(*) FROM runs r WHERE r.lease_id = e.lease_id)`,
		"expired leases are not charged in full":    `SELECT count(*) FROM leases WHERE state = 'expired' AND charged_ms <> held_ms`,
	} {
		if n := count(query); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}

func report(t *testing.T, returns []time.Duration) {
	t.Helper()
	if len(returns) == 0 {
		t.Fatal("no slot was returned from a worker")
	}
	at := func(share float64) time.Duration {
		return returns[int(share*float64(len(returns)-1))].Round(time.Millisecond)
	}
	t.Logf("FIRE %d workers ended, delay until the slot was free: p50 %s, p99 %s, worst %s", len(returns), at(0.5), at(0.99), at(1))
	if fire && at(0.99) > 3*time.Second {
		t.Errorf("p99 %s, want at most the grace period of 2 s plus one second", at(0.99))
	}
}
