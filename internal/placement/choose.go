package placement

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
)

// Space is what Choose needs to know of a Space.
type Space struct {
	Name     string
	On       []string // its words; nil: the host's own machine
	NeedsGPU bool
}

// Choose returns the node on which a Space runs from now on. running is the node of its present start, or of its last one, where its
// files are; "" if it has had none. Without a node that may run the Space, node is "", and why is a sentence for the operator. The order of
// nodes and of their labels has no effect.
func Choose(s Space, nodes []Node, running string) (node, why string) {
	if len(s.On) == 0 {
		return Host, ""
	}
	var best *Node
	for i, n := range nodes {
		if !s.matches(n) {
			continue
		}
		if n.Name == running && s.mayStay(n) { // rule 1
			return running, ""
		}
		if n.Name == running && s.isAwaitedAt(n) { // rule 1
			return "", fmt.Sprintf("%s, where it has run last, %s", n.Name, s.obstacle(n))
		}
		if s.obstacle(n) == "" && (best == nil || s.prefer(n, *best) < 0) { // rules 2 to 6
			best = &nodes[i]
		}
	}
	if best == nil {
		return "", s.whyNone(nodes)
	}
	return best.Name, ""
}

// mayStay is rule 1: a suspect node counts as connected.
func (s Space) mayStay(n Node) bool {
	if n.State == Suspect {
		n.State = Connected
	}
	return s.obstacle(n) == ""
}

// isAwaitedAt is rule 1 after a start of the host, and after the end of the link. The Devices of the node are known once it has connected.
func (s Space) isAwaitedAt(n Node) bool { return n.State == Awaited && !n.Drained }

// prefer is negative if a is the better node for the Space. It is never 0 for nodes with different names.
func (s Space) prefer(a, b Node) int {
	return cmp.Or(
		compareEnds(b, a),                   // rule 3
		compareShares(b, a),                 // rule 4
		cmp.Compare(b.Memory, a.Memory),     // rule 5
		bytes.Compare(s.hash(b), s.hash(a)), // rule 6
	)
}

// compareEnds is negative if only a leaves soon.
func compareEnds(a, b Node) int {
	switch {
	case a.leavesSoon() == b.leavesSoon():
		return 0
	case a.leavesSoon():
		return -1
	}
	return 1
}

// compareShares compares the free Slots per Space, with one Space more on each.
func compareShares(a, b Node) int {
	return cmp.Compare(int64(a.FreeSlots)*int64(b.Spaces+1), int64(b.FreeSlots)*int64(a.Spaces+1))
}

func (s Space) hash(n Node) []byte {
	sum := sha256.Sum256([]byte(s.Name + "\x00" + n.Name))
	return sum[:]
}

// matches reports whether a word of the Space is the name or a label of the node. The word Host is the name of the host's own machine
// only, so that a label cannot replace it.
func (s Space) matches(n Node) bool {
	return slices.ContainsFunc(s.On, func(word string) bool {
		return word == n.Name || word != Host && slices.Contains(n.Labels, word)
	})
}
