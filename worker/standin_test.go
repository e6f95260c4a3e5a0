package worker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestStandinIsInPlaceBeforeTorchIsAskedForAGPU checks the answers that spaces would get from a driver before the
// first worker. `make torch` checks the computations of a worker with the real torch.
func TestStandinIsInPlaceBeforeTorchIsAskedForAGPU(t *testing.T) {
	all := []any{"pack", "size", "init", "move", "is_in_bad_fork", "patch", "unpatch"}
	for _, row := range []struct {
		name, release string
		simulated     bool
		want          map[string]any
		prints        string
	}{
		{"simulated", "new", true, map[string]any{
			"before": nil, "seen": []any{"12.8", true}, "own": []any{"patch", "unpatch"}, "generator replaced": true,
			"weights": 4711.0, "to transfer": 0.0, "bad fork": false, "generators": true,
		}, ""},
		{"real GPUs", "new", false, map[string]any{"before": nil, "seen": []any{nil, false}, "own": all, "generator replaced": false}, ""},
		{"an old release", "old", true, map[string]any{"before": nil, "seen": []any{"12.8", true}, "own": all, "generator replaced": false},
			"spacehost: this release of spaces lacks cuda_aliases, "},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, r := startApp(t, "fake_cuda", func(c *ProcessConfig) {
				c.Simulated = row.simulated
				c.Env = append(c.Env, "RELEASE="+row.release)
			})
			var got map[string]any
			if err := json.Unmarshal([]byte(r.awaitLine(t, p, "fake_cuda ")), &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got  %v\nwant %v", got, row.want)
			}
			within(t, patient, "the app ends", p.Done())
			warned := strings.Contains(strings.Join(r.printed(), "\n"), "spacehost: ")
			if row.prints == "" && warned {
				t.Errorf("it prints a warning: %q", r.printed())
			}
			if row.prints != "" {
				r.awaitLine(t, p, row.prints)
			}
		})
	}
}
