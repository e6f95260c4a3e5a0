package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// guidePools are the pools of the example in the operator guide.
var guidePools = []Pool{{Name: "slurm", Partition: "gpu", Gres: "gpu:2", Max: 4, Time: 8 * time.Hour, Drain: 10 * time.Minute, Idle: time.Hour, Wait: 30 * time.Second, Labels: []string{"h200"}}}

func loadPools(t *testing.T, text string) (Settings, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("demo", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("lab.yaml", []byte("spaces: [{folder: demo, address: ':1', on: h200}]\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _, err := load("lab.yaml", "", true)
	return s, err
}

// TestPools reads each key of a pool, and the defaults.
func TestPools(t *testing.T) {
	s, err := loadPools(t, front+`pools:
- slurm: {}
- slurm: {name: big, partition: gpu, account: physics, gres: "gpu:8", min: 2, max: 40, time: 2d, drain: 30m, idle: 90s, wait: 0s, labels: [h200, night],
    gpus: mock:2xH200, options: [--qos=low, --exclusive], program: /opt/spacehost/, state: /scratch/spacehost, front: "front.lab.example:7443"}
- slurm: {name: always, min: 3}
`)
	if err != nil {
		t.Fatal(err)
	}
	always := DefaultPool
	always.Name, always.Min, always.Max = "always", 3, 3
	want := []Pool{DefaultPool, {
		Name: "big", Partition: "gpu", Account: "physics", Gres: "gpu:8", Min: 2, Max: 40, Time: 48 * time.Hour, Drain: 30 * time.Minute, Idle: 90 * time.Second, Labels: []string{"h200", "night"},
		GPUs: "mock:2xH200", Options: []string{"--qos=low", "--exclusive"}, Program: "/opt/spacehost", State: "/scratch/spacehost", Front: "front.lab.example:7443",
	}, always}
	if !reflect.DeepEqual(s.Pools, want) {
		t.Errorf("got  %+v\nwant %+v", s.Pools, want)
	}
	if s.Pools[0].Provides(s.Spaces[0]) || !s.Pools[1].Provides(s.Spaces[0]) {
		t.Error("the Space may run in the pool with the label h200 alone")
	}
}

// TestPoolMistakes has a row for each mistake.
func TestPoolMistakes(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"pools: [{slurm: {}}]\n", "lab.yaml:2: pools[0].slurm: has no effect without nodes; add `cluster: {listen: ADDRESS}`, or remove the pool"},
		{front + "pools: [{slurm: {}}, {slurm: {}}]\n", "lab.yaml:3: pools[1].slurm: another pool is named slurm; give one of them another `name`"},
		{front + "pools: [{}]\n", "lab.yaml:3: pools[0]: has no `slurm`; add it"},
		{front + "pools: [{kubernetes: {}}]\n", "lab.yaml:3: pools[0].kubernetes: unknown key"},
		{front + "pools: {slurm: {}}\n", "lab.yaml:3: pools: must be a list of pools"},
		{front + "pools: [{slurm: {min: 2, max: 1}}]\n", "lab.yaml:3: pools[0].slurm: `min` 2 is above `max` 1; raise `max`"},
		{front + "pools: [{slurm: {max: 1001}}]\n", "must be a whole number from 0 to 1000"},
		{front + "pools: [{slurm: {time: 11m}}]\n", "pools[0].slurm: the time limit 11m of a job is not enough for the drain 10m; make it at least 2m longer"},
		{front + "pools: [{slurm: {time: soon}}]\n", "pools[0].slurm.time: must be a duration from 2m to 8760h, such as 10m, 8h or 7d, not \"soon\""},
		{front + "pools: [{slurm: {name: GPU}}]\n", "pools[0].slurm.name: \"GPU\" cannot be the name or a label of a node"},
		{front + "pools: [{slurm: {name: host}}]\n", "pools[0].slurm.name: host is the label of the host's own machine"},
		{front + "pools: [{slurm: {name: " + strings.Repeat("a", 31) + "}}]\n", "choose a name of at most 30 characters"},
		{front + "pools: [{slurm: {labels: [a, a]}}]\n", "duplicate label a"},
		{front + "pools: [{slurm: {gres: \"gpu'2\"}}]\n", "pools[0].slurm.gres: \"gpu'2\" must have up to 200 printable ASCII characters"},
		{front + "pools: [{slurm: {options: [--nodes=2]}}]\n", "pools[0].slurm.options[0]: spacehost sets the option --nodes of sbatch itself"},
		{front + "pools: [{slurm: {program: spacehost}}]\n", "pools[0].slurm.program: \"spacehost\" is not an absolute path"},
		{front + "pools: [{slurm: {front: front}}]\n", "pools[0].slurm.front: \"front\" is not an address; give HOST:PORT"},
		{front + "pools: [{slurm: {gpus: two}}]\n", "pools[0].slurm.gpus: "},
		{front + "pools: [{slurm: {partitions: gpu}}]\n", "pools[0].slurm.partitions: unknown key; did you mean \"partition\"?"},
	} {
		if _, err := loadPools(t, row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.text, err, row.want)
		}
	}
}

// TestPoolChanges: a reload applies each change at once.
func TestPoolChanges(t *testing.T) {
	const space = "spaces: [{folder: demo, address: ':1'}]\n"
	lines, all := differenceOf(t, front+space+"pools: [{slurm: {max: 2}}, {slurm: {name: old}}]\n", front+space+"pools: [{slurm: {max: 4, labels: [h200]}}, {slurm: {name: new, min: 1}}]\n")
	if want := []string{"+ pool new (1 to 1 jobs)", "- pool old", "~ pool slurm: max 2 -> 4", "~ pool slurm: labels none -> h200"}; !reflect.DeepEqual(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	for _, c := range all {
		if c.Effect != AtOnce {
			t.Errorf("%s has the effect %s", c, c.Effect)
		}
	}
}
