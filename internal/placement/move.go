package placement

import (
	"fmt"
	"slices"
	"strings"
)

// MoveError refuses to move a Space.
type MoveError struct{ Why string }

func (e *MoveError) Error() string { return e.Why }

// CheckMove judges a command to move a Space to a node. running is the node on which it runs; "" while it waits for one. Errors:
// *MoveError.
func CheckMove(s Space, nodes []Node, running, to string) error {
	refuse := func(format string, args ...any) error { return &MoveError{fmt.Sprintf(format, args...)} }
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == to })
	switch {
	case i < 0:
		return refuse("no node is named %.70q; nodes: %s", to, names(nodes))
	case to == running:
		return refuse("%s runs on %s already", s.Name, to)
	case len(s.On) == 0:
		return refuse("%s has no key `on`, so it runs on the host's own machine; add `on: [%s]` to its configuration and run `spacehost reload`", s.Name, to)
	case !s.matches(nodes[i]):
		return refuse("%s runs on nodes with %s only, and %s has none of them; change its key `on` and run `spacehost reload`", s.Name, s.words(), nodes[i].text())
	}
	if obstacle := s.obstacle(nodes[i]); obstacle != "" {
		return refuse("%s cannot run on %s, because the node %s", s.Name, to, obstacle)
	}
	return nil
}

func names(nodes []Node) string {
	var all []string
	for _, n := range byName(nodes) {
		all = append(all, n.Name)
	}
	return strings.Join(all, ", ")
}
