package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
)

func returns(text string) func(context.Context) []Finding {
	return func(context.Context) []Finding { return []Finding{ok("%s", text)} }
}

func TestFindingsKeepOrderOfChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) []Finding {
			time.Sleep(2 * time.Second)
			return []Finding{ok("first"), ok("second")}
		}
		began := time.Now()
		got := Run(t.Context(), []Check{{Name: "slow", Probe: slow}, {Name: "quick", Probe: returns("third")}, {Name: "slower", Probe: slow}})
		want := []Finding{{"slow", OK, "first", ""}, {"slow", OK, "second", ""}, {"quick", OK, "third", ""}, {"slower", OK, "first", ""}, {"slower", OK, "second", ""}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("took %s, want 2s: all checks concurrently", took)
		}
	})
}

func TestHangingCheckIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		driver := make(chan struct{})
		var ended atomic.Int32
		hang := func(context.Context) []Finding { // like a call into a wedged driver: it ignores ctx
			<-driver
			ended.Add(1)
			return []Finding{ok("too late")}
		}
		late := Finding{Level: Problem, Text: "It hangs", Do: "Look"}
		began := time.Now()
		got := Run(t.Context(), []Check{
			{Name: "driver", Limit: 7 * time.Second, Late: late, Probe: hang}, {Name: "other", Probe: hang}, {Name: "good", Probe: returns("fine")},
		})
		if took := time.Since(began); took != 7*time.Second || ended.Load() != 0 {
			t.Errorf("took %s with %d probes ended, want 7s, the longest limit, and none", took, ended.Load())
		}
		want := []Finding{
			{"driver", Problem, "It hangs", "Look"},
			{"other", Warning, "Unknown: this check did not end within 5s", "Try again when this machine is less busy"},
			{"good", OK, "fine", ""},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		close(driver) // then the goroutines end; otherwise synctest would fail
	})
}

func TestContextReachesProbes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := Run(ctx, []Check{{Name: "one", Probe: func(ctx context.Context) []Finding {
		<-ctx.Done()
		return []Finding{ok("ended")}
	}}})
	if len(got) != 1 || got[0].Check != "one" {
		t.Errorf("got %+v, want one finding of the check", got)
	}
}

func TestFindingInJSON(t *testing.T) {
	got, err := json.Marshal(Finding{"disk", Warning, "full", "make room"})
	if want := `{"check":"disk","level":"warning","text":"full","do":"make room"}`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

// TestThisMachine makes every check as `spacehost doctor` does, except NVML.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	checks := Checks(Config{
		State: filepath.Join(dir, "state"), Environments: filepath.Join(dir, "environments"), Addresses: []string{"127.0.0.1:0"},
		GPUs: func(context.Context) ([]gpu.DeviceStatus, error) { return nil, &gpu.NoLibraryError{} },
	})
	found := Run(t.Context(), checks)
	if took := time.Since(began); took > 45*time.Second {
		t.Errorf("took %s, want at most 45s", took)
	}
	byCheck := map[string]int{}
	for _, f := range found {
		t.Logf("%s: %s: %s | %s", f.Check, f.Level, f.Text, f.Do)
		byCheck[f.Check]++
		if f.Text == "" || (f.Do == "") != (f.Level == OK) || unknown(f.Level) {
			t.Errorf("%+v: want a level, a text, and what to do if it is not ok", f)
		}
	}
	for _, c := range checks {
		if byCheck[c.Name] == 0 {
			t.Errorf("check %s found nothing", c.Name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v; want nothing", left, err)
	}
}

func unknown(l Level) bool { return l != OK && l != Note && l != Warning && l != Problem }
