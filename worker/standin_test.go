package worker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// TestStandinIsInPlaceBeforeTorchIsAskedForAGPU: what spaces would ask a driver before the first worker. What a worker
// computes then is tried with the real torch, by `make torch`.
func TestStandinIsInPlaceBeforeTorchIsAskedForAGPU(t *testing.T) {
	all := []any{"pack", "size", "init", "move", "is_in_bad_fork", "patch", "unpatch"}
	for _, row := range []struct {
		name, release string
		simulated     bool
		want          map[string]any
		says          string
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
			said := strings.Contains(strings.Join(r.printed(), "\n"), "spacehost: ")
			if row.says == "" && said {
				t.Errorf("it is told of a trouble: %q", r.printed())
			}
			if row.says != "" {
				r.awaitLine(t, p, row.says)
			}
		})
	}
}
