package host

import (
	"strings"
	"testing"
	"time"

	"spacehost/internal/egress"
)

// TestNodeUses keeps the answers of nodes about the Spaces that run there, and drops those of other nodes, of other starts, and old ones.
func TestNodeUses(t *testing.T) {
	var uses startUses
	now := time.Now()
	uses.note("gpu1", []startUse{{Space: "one", Instance: "a", Memory: 5, Processes: 2, CPU: time.Second, Disk: 7}, {Space: "bad", Instance: "b", Memory: -1, CPU: -1, Disk: -1}}, now)
	uses.note("gpu2", []startUse{{Space: "one", Instance: "a", Memory: 9}, {Space: "two", Instance: "c", Memory: 3}}, now)
	for _, row := range []struct {
		what, space, node, instance string
		after                       time.Duration
		memory, disk                int64
	}{
		{"the answer of its node", "one", "gpu1", "a", 0, 5, 7},
		{"the claim of another node, if the Space ran there", "one", "gpu2", "a", 0, 9, 0},
		{"another Space", "two", "gpu2", "c", 0, 3, 0},
		{"another start", "one", "gpu1", "b", 0, 0, -1},
		{"no start", "one", "gpu1", "", 0, 0, -1},
		{"negative numbers", "bad", "gpu1", "b", 0, 0, -1},
		{"a late answer", "one", "gpu1", "a", nodeUseAge - 1, 5, 7},
		{"an old answer", "one", "gpu1", "a", nodeUseAge, 0, -1},
		{"no answer", "three", "gpu1", "d", 0, 0, -1},
	} {
		if use := uses.of(row.space, row.node, row.instance, now.Add(row.after)); use.Memory != row.memory || use.Disk != row.disk || use.CPU < 0 {
			t.Errorf("%s: %+v, want %d bytes of memory and %d on the disk", row.what, use, row.memory, row.disk)
		}
	}
	uses.note("gpu1", []startUse{{Space: "one", Instance: "a", Traffic: egress.Stats{Refused: -1, Sent: 3}, Refusal: "connect to \x1b[31m10.0.0.1" + strings.Repeat("0", 1000)}}, now)
	if use := uses.of("one", "gpu1", "a", now); use.Traffic != (egress.Stats{Sent: 3}) || strings.Contains(use.Refusal, "\x1b") || len([]rune(use.Refusal)) > 200 {
		t.Errorf("claims about the network: %+v", use)
	}
	uses.note("gpu2", []startUse{{Space: "one", Instance: "a", Memory: 1}}, now)
	uses.note("gpu1", []startUse{{Space: "one", Instance: "a", Memory: 5}}, now)
	if use := uses.of("one", "gpu1", "a", now); use.Memory != 5 {
		t.Errorf("after a claim of another node: %+v", use)
	}
	uses.note("gpu1", nil, now)
	if use := uses.of("one", "gpu1", "a", now); use.Memory != 0 {
		t.Errorf("a Space that has ended still uses %+v", use)
	}
}
