package placement

import (
	"strings"
	"testing"
	"time"
)

var twoPM = time.Date(2026, 12, 1, 14, 2, 0, 0, time.Local)

// up returns a connected node with one Device and one free Slot.
func up(name string, labels ...string) Node {
	return Node{Name: name, Labels: labels, State: Connected, Devices: 1, FreeSlots: 1}
}

func with(n Node, change func(*Node)) Node {
	change(&n)
	return n
}

func drained(n Node, reason string) Node {
	return with(n, func(n *Node) { n.Drained, n.Reason = true, reason })
}

func in(state State, n Node) Node {
	return with(n, func(n *Node) { n.State, n.Since = state, twoPM })
}

func leaving(n Node, left time.Duration) Node {
	return with(n, func(n *Node) { n.Leaves = left })
}

func slots(n Node, free, spaces int) Node {
	return with(n, func(n *Node) { n.FreeSlots, n.Spaces = free, spaces })
}

func TestChoose(t *testing.T) {
	host := up(Host)
	noGPU := with(up("cpu1", "small"), func(n *Node) { n.Devices, n.FreeSlots = 0, 0 })
	for _, row := range []struct {
		name    string
		on      []string
		noGPU   bool // the Space has no GPU functions
		nodes   []Node
		running string
		node    string
		why     string
	}{
		{name: "no words", nodes: []Node{host, up("gpu1")}, node: Host},
		{name: "no words, while it runs elsewhere", nodes: []Node{host, up("gpu1")}, running: "gpu1", node: Host},
		{name: "by name", on: []string{"gpu2"}, nodes: []Node{host, slots(up("gpu1"), 9, 0), up("gpu2")}, node: "gpu2"},
		{name: "by label", on: []string{"h200"}, nodes: []Node{host, slots(up("gpu1", "a100"), 9, 0), up("gpu2", "h200", "big")}, node: "gpu2"},
		{name: "the host among nodes", on: []string{"h200", Host}, nodes: []Node{slots(host, 2, 0), up("gpu1", "h200")}, node: Host},
		{name: "the host by its name only", on: []string{Host}, nodes: []Node{host, slots(up("gpu1", Host), 9, 0)}, node: Host},

		{name: "rule 1: it stays", on: []string{"h200"}, nodes: []Node{up("gpu1", "h200"), slots(up("gpu2", "h200"), 9, 0)}, running: "gpu1", node: "gpu1"},
		{name: "rule 1: it stays on a suspect node", on: []string{"h200"}, nodes: []Node{in(Suspect, up("gpu1", "h200")), up("gpu2", "h200")}, running: "gpu1", node: "gpu1"},
		{name: "rule 1: it leaves a drained node", on: []string{"h200"}, nodes: []Node{drained(up("gpu1", "h200"), "new fan"), up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},
		{name: "rule 1: it leaves a drained node that is suspect", on: []string{"h200"}, nodes: []Node{in(Suspect, drained(up("gpu1", "h200"), "")), up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},
		{name: "rule 1: it leaves a lost node", on: []string{"h200"}, nodes: []Node{in(Lost, up("gpu1", "h200")), up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},
		{name: "rule 1: it leaves a node without the word", on: []string{"h200"}, nodes: []Node{slots(up("gpu1", "a100"), 9, 0), up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},
		{name: "rule 1: its node was forgotten", on: []string{"h200"}, nodes: []Node{up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},

		{name: "rule 1: it waits for an awaited node", on: []string{"h200"}, nodes: []Node{slots(up("gpu2", "h200"), 9, 0), in(Awaited, with(up("gpu1", "h200"), func(n *Node) { n.Devices = 0 }))}, running: "gpu1",
			why: "gpu1, where it has run last, has not connected again since 2026-12-01 14:02"},
		{name: "rule 1: it does not wait for an awaited node that is drained", on: []string{"h200"}, nodes: []Node{in(Awaited, drained(up("gpu1", "h200"), "")), up("gpu2", "h200")}, running: "gpu1", node: "gpu2"},
		{name: "rule 1: it waits for its own node only", on: []string{"h200"}, nodes: []Node{in(Awaited, up("gpu1", "h200")), up("gpu2", "h200")}, node: "gpu2"},

		{name: "rule 2: no Device is needed", on: []string{"small"}, noGPU: true, nodes: []Node{noGPU}, node: "cpu1"},
		{name: "rule 2: a Device is needed", on: []string{"small"}, nodes: []Node{noGPU}, why: "no node with the name or label small can run it: cpu1 has no GPU"},
		{name: "rule 2: none is available", on: []string{"h200"}, nodes: []Node{host, in(Lost, up("gpu3", "h200")), drained(up("gpu2", "h200"), "new fan"), up("gpu1")},
			why: "no node with the name or label h200 can run it: gpu2 is drained (new fan); gpu3 is lost since 2026-12-01 14:02"},
		{name: "rule 2: every obstacle", on: []string{"e", "d", "c", "b", "a", "a"}, nodes: []Node{in(Revoked, up("e")), in(Joined, up("d")), in(Suspect, up("c")), drained(up("b"), ""), in("asleep", up("a"))},
			why: `no node with one of the names or labels a, b, c, d, e can run it: a has the unknown state "asleep"; b is drained; c does not answer since 2026-12-01 14:02; d has not connected yet; e is revoked`},
		{name: "rule 2: none matches", on: []string{"h200"}, nodes: []Node{host, up("gpu2"), up("gpu1", "b200", "a100"), in(Revoked, up("old"))}, why: "no node has the name or label h200; nodes: gpu1 (a100, b200), gpu2"},
		{name: "rule 2: no node has joined", on: []string{"h200"}, nodes: []Node{host}, why: "no node has the name or label h200, because none has joined; run `spacehost node token` and start an agent with the token"},

		{name: "rule 3: a node that leaves soon", on: []string{"x"}, nodes: []Node{slots(leaving(up("a", "x"), 10*time.Minute), 9, 0), leaving(up("b", "x"), LeavesSoon)}, node: "b"},
		{name: "rule 3: there is no other one", on: []string{"x"}, nodes: []Node{leaving(up("a", "x"), 10*time.Minute), drained(slots(up("b", "x"), 9, 0), "new fan")}, node: "a"},
		{name: "rule 3: all leave soon", on: []string{"x"}, nodes: []Node{leaving(up("a", "x"), 20*time.Minute), leaving(slots(up("b", "x"), 2, 0), 10*time.Minute)}, node: "b"},
		{name: "rule 1: it stays on a node that leaves soon", on: []string{"x"}, nodes: []Node{leaving(up("a", "x"), time.Minute), up("b", "x")}, running: "a", node: "a"},
		{name: "rule 4: free Slots", on: []string{"x"}, nodes: []Node{slots(up("a", "x"), 1, 0), slots(up("b", "x"), 2, 0)}, node: "b"},
		{name: "rule 4: per Space", on: []string{"x"}, nodes: []Node{slots(up("a", "x"), 3, 0), slots(up("b", "x"), 8, 2)}, node: "a"},
		{name: "rule 4: before memory", on: []string{"x"}, nodes: []Node{with(up("a", "x"), func(n *Node) { n.Memory = 1 << 40 }), slots(up("b", "x"), 2, 0)}, node: "b"},
		{name: "rule 5: free memory", on: []string{"x"}, nodes: []Node{slots(with(up("a", "x"), func(n *Node) { n.Memory = 1 }), 1, 0), slots(with(up("b", "x"), func(n *Node) { n.Memory = 2 }), 2, 1)}, node: "b"},
	} {
		t.Run(row.name, func(t *testing.T) {
			node, why := Choose(Space{Name: "demo", On: row.on, NeedsGPU: !row.noGPU}, row.nodes, row.running)
			if node != row.node || why != row.why {
				t.Errorf("got  %q, %q\nwant %q, %q", node, why, row.node, row.why)
			}
		})
	}
}

// TestRendezvous checks that equal nodes share the Spaces, and that a node that leaves moves only its own Spaces (rule 6).
func TestRendezvous(t *testing.T) {
	nodes := []Node{up("gpu1", "x"), up("gpu2", "x"), up("gpu3", "x")}
	count := map[string]int{}
	for i := range 300 {
		s := Space{Name: "space" + strings.Repeat("-", i), On: []string{"x"}}
		first, _ := Choose(s, nodes, "")
		count[first]++
		second, _ := Choose(s, nodes[1:], "")
		if first != "gpu1" && first != second {
			t.Fatalf("%s: %s without gpu1, and %s with it", s.Name, second, first)
		}
	}
	for _, n := range nodes {
		if count[n.Name] < 60 { // 100 are expected, with a standard deviation of 8
			t.Errorf("%s has %d of 300 Spaces", n.Name, count[n.Name])
		}
	}
}

func TestCheckMove(t *testing.T) {
	nodes := []Node{up(Host), up("gpu1", "h200"), drained(up("gpu2", "h200"), "new fan"), up("gpu3", "a100"), with(up("gpu4", "h200"), func(n *Node) { n.Devices = 0 })}
	for _, row := range []struct {
		on          []string
		running, to string
		want        string // "": allowed
	}{
		{[]string{"h200", Host}, "gpu2", "gpu1", ""},
		{[]string{"h200", Host}, "gpu1", Host, ""},
		{[]string{"h200"}, "", "gpu1", ""},
		{[]string{"h200"}, "gpu1", "gpu1", "demo runs on gpu1 already"},
		{nil, Host, Host, "demo runs on host already"},
		{nil, Host, "gpu1", "demo has no key `on`, so it runs on the host's own machine; add `on: [gpu1]` to its configuration and run `spacehost reload`"},
		{[]string{"h200"}, "gpu1", "gpu9", `no node is named "gpu9"; nodes: gpu1, gpu2, gpu3, gpu4, host`},
		{[]string{"h200"}, "gpu1", "gpu3", "demo runs on nodes with the name or label h200 only, and gpu3 (a100) has none of them; change its key `on` and run `spacehost reload`"},
		{[]string{"h200"}, "gpu1", Host, "demo runs on nodes with the name or label h200 only, and host has none of them; change its key `on` and run `spacehost reload`"},
		{[]string{"h200"}, "gpu1", "gpu2", "demo cannot run on gpu2, because the node is drained (new fan)"},
		{[]string{"h200"}, "gpu1", "gpu4", "demo cannot run on gpu4, because the node has no GPU"},
	} {
		got := ""
		if err := CheckMove(Space{Name: "demo", On: row.on, NeedsGPU: true}, nodes, row.running, row.to); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("from %q to %q with %q:\ngot  %q\nwant %q", row.running, row.to, row.on, got, row.want)
		}
	}
}

func TestCheckWord(t *testing.T) {
	for _, word := range []string{"h200", "gpu2.lab-a", "a_b", "0", strings.Repeat("x", MaxWord)} {
		if err := CheckWord(word); err != nil {
			t.Errorf("%s: %v", word, err)
		}
	}
	for _, word := range []string{"", "H200", "-a", "a-", "a b", "gpu*", strings.Repeat("x", MaxWord+1)} {
		if CheckWord(word) == nil {
			t.Errorf("%q is accepted", word)
		}
	}
}
