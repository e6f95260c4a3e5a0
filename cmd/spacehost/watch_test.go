package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/lease"
)

// metrics reads /metrics as Prometheus does: each series with its value.
func (p *product) metrics() map[string]float64 {
	p.t.Helper()
	answer, err := http.Get(p.Console + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatalf("metrics: %s %v %s", answer.Status, err, body)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ') + 1
		if n, err := strconv.ParseFloat(line[end:], 64); err == nil && end > 0 {
			all[line[:end-1]] = n
		}
	}
	return all
}

// TestWatchAndMetrics makes a successful call and one that is killed at its deadline, and checks the watch and the metrics.
func TestWatchAndMetrics(t *testing.T) {
	t.Parallel()
	p := runOn(t, "v6", leasesDir)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	var watching sync.WaitGroup
	watching.Go(func() {
		code := cli.Run(ctx, []string{"lease", "--watch", "--json", "--state", p.State}, in, p)
		in.CloseWithError(fmt.Errorf("exit code %d", code))
	})
	c := p.client()
	c.ok("/five", 0)
	if r := c.submit("/overstay", 30).wait(); !r.Failed {
		t.Fatal("a call beyond its deadline succeeded")
	}
	changes := json.NewDecoder(out)
	wantTwoEnds(t, p, changes)
	stop()
	watching.Wait()
	if _, err := changes.Token(); err == nil || err.Error() != "exit code 0" {
		t.Errorf("after the end of the watch: %v, want exit code 0", err)
	}
	wantMetrics(t, p)
}

// wantTwoEnds reads the watch until two leases have ended, and checks the states of both.
func wantTwoEnds(t *testing.T, p *product, changes *json.Decoder) {
	t.Helper()
	name := p.health().Spaces[0].Name
	states := map[string][]lease.State{}
	for ends := 0; ends < 2; {
		var change lease.Change
		if err := changes.Decode(&change); err != nil {
			t.Fatal(err)
		}
		states[change.Lease] = append(states[change.Lease], change.State)
		if change.IsFinal() {
			ends++
			if change.Space != name || change.Identity != "local" || change.Worker == 0 {
				t.Errorf("got %+v", change)
			}
		}
	}
	got := map[string]bool{}
	for _, path := range states {
		got[fmt.Sprint(path)] = true
	}
	for _, want := range []string{"[waiting granted active released]", "[waiting granted active expired]"} {
		if !got[want] {
			t.Errorf("no lease had the states %s: %v", want, states)
		}
	}
}

// wantMetrics checks the metrics after both calls, and those of a lost GPU.
func wantMetrics(t *testing.T, p *product) {
	t.Helper()
	name, seen := p.health().Spaces[0].Name, p.metrics()
	for series, want := range map[string]float64{
		`spacehost_lease_grants_total{size="large",space="` + name + `",warm="no"}`: 2,
		`spacehost_leases_ended_total{space="` + name + `",state="expired"}`:        1,
		`spacehost_leases_ended_total{space="` + name + `",state="released"}`:       1,
		`spacehost_worker_kills_total{cause="deadline",space="` + name + `"}`:       1,
		`spacehost_lease_wait_seconds_bucket{tier="free",le="+Inf"}`:                2,
		`spacehost_database_writable`:                                               1,
		`spacehost_space_stage{space="` + name + `",stage="RUNNING"}`:               1,
	} {
		if seen[series] != want {
			t.Errorf("%s is %v, want %v", series, seen[series], want)
		}
	}
	charged := seen[`spacehost_gpu_charged_seconds_total{space="`+name+`",tier="free"}`]
	if b := p.balance(); charged != b.ChargedSeconds || charged <= 5 {
		t.Errorf("the metrics count %v s charged, the ledger %v", charged, b.ChargedSeconds)
	}
	uuid := string(p.gpu().UUID)
	if total := seen[`spacehost_device_memory_bytes{kind="total",uuid="`+uuid+`"}`]; total < 1<<30 {
		t.Errorf("device memory: got %v bytes, want at least 1 GiB", total)
	}
	p.fault("lost", "lost")
	eventually(t, "the lost GPU is reported as unhealthy", patience, func() bool {
		return p.metrics()[`spacehost_device_healthy{name="`+p.gpu().Name+`",simulated="yes",uuid="`+uuid+`"}`] == 0
	})
}
