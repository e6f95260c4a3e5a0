package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// obstacle is rule 2 without the words. It returns why the node may not run the Space, as the end of a sentence about the node; "" if it
// may.
func (s Space) obstacle(n Node) string {
	switch {
	case n.State == Revoked:
		return "is revoked"
	case n.State == Joined:
		return "has not connected yet"
	case n.State == Lost:
		return "is lost" + since(n.Since)
	case n.State == Awaited:
		return "has not connected again" + since(n.Since)
	case n.State == Suspect:
		return "does not answer" + since(n.Since)
	case n.State != Connected:
		return fmt.Sprintf("has the unknown state %.20q", n.State)
	case n.Drained && n.Reason != "":
		return "is drained (" + n.Reason + ")"
	case n.Drained:
		return "is drained"
	case s.NeedsGPU && n.Devices == 0:
		return "has no GPU"
	}
	return ""
}

func since(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return " since " + at.Local().Format("2006-01-02 15:04")
}

// whyNone returns why no node may run the Space.
func (s Space) whyNone(nodes []Node) string {
	var obstacles, others []string
	for _, n := range byName(nodes) {
		if s.matches(n) {
			obstacles = append(obstacles, n.Name+" "+s.obstacle(n))
		} else if n.Name != Host && n.State != Revoked {
			others = append(others, n.text())
		}
	}
	switch {
	case len(obstacles) > 0:
		return fmt.Sprintf("no node with %s can run it: %s", s.words(), strings.Join(obstacles, "; "))
	case len(others) > 0:
		return fmt.Sprintf("no node has %s; nodes: %s", s.words(), strings.Join(others, ", "))
	}
	return fmt.Sprintf("no node has %s, because none has joined; run `spacehost node token` and start an agent with the token", s.words())
}

// words names the words of the Space in a sentence.
func (s Space) words() string {
	on := slices.Compact(slices.Sorted(slices.Values(s.On)))
	if len(on) == 1 {
		return "the name or label " + on[0]
	}
	return "one of the names or labels " + strings.Join(on, ", ")
}

// text is the name of a node with its labels.
func (n Node) text() string {
	if len(n.Labels) == 0 {
		return n.Name
	}
	return fmt.Sprintf("%s (%s)", n.Name, strings.Join(slices.Sorted(slices.Values(n.Labels)), ", "))
}

func byName(nodes []Node) []Node {
	return slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
}
