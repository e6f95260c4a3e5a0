package config

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/placement"
)

// maxOn bounds the names and labels of one Space.
const maxOn = 32

// MayRunOnNode reports whether the Space may run on another machine than the host's own.
func (s SpaceSettings) MayRunOnNode() bool {
	return slices.ContainsFunc(s.On, func(word string) bool { return word != placement.Host })
}

// onKey reads one word, or a list of words.
func (s *spaceEntry) onKey(n node) {
	s.onAt = n
	if n.yaml.Kind == yaml.ScalarNode {
		if text, ok := n.text(); ok {
			s.addOn(n, text)
		}
		return
	}
	n.texts("names and labels of nodes", s.addOn)
	switch {
	case n.yaml.Kind == yaml.SequenceNode && len(n.yaml.Content) == 0:
		n.fail("is empty; add the name or a label of a node, or remove the key to run the Space on this machine")
	case len(s.On) > maxOn:
		n.fail("has %d names and labels; give at most %d", len(s.On), maxOn)
	}
}

func (s *spaceEntry) addOn(at node, word string) {
	if err := placement.CheckWord(word); err != nil {
		at.fail("%v", err)
		return
	}
	if slices.Contains(s.On, word) {
		at.fail("duplicate name or label %s; remove one of them", word)
		return
	}
	s.On = append(s.On, word)
}

// checkOn refuses `on` without nodes, and with keys that a node cannot apply. It follows checkIsolation, because some of these keys
// have a default at the top level.
func (l *loader) checkOn(s *spaceEntry) {
	switch {
	case !s.onAt.isPresent():
	case !l.settings.IsFront():
		s.onAt.fail("has no effect without nodes; add `cluster: {listen: ADDRESS}`, or remove `on`")
	case s.MayRunOnNode():
		l.checkNodeKeys(s)
	}
}

// checkNodeKeys refuses the keys that only the host's own machine can apply.
func (l *loader) checkNodeKeys(s *spaceEntry) {
	const orHost = ", or use `on: host`"
	e := &s.isolation
	if s.Python != "" {
		s.pythonAt.fail("is a path of the host's machine, which a node does not have; remove `python` so that the node builds the environment" + orHost)
	}
	if len(e.Mounts) > 0 {
		e.nodes["mounts"].fail("are paths of the host's machine, which a node does not have; remove `mounts`" + orHost)
	}
	if e.Data.Path != "" {
		e.nodes["data"].fail("is a path of the host's machine, which a node does not have; use `data: true` for a folder on the node" + orHost)
	}
	if e.SourceMode == SourceReadWrite {
		e.nodes["source"].fail("a node has a copy of the folder, so writes would not reach it; use `source: overlay` or `source: ro`" + orHost)
	}
	switch e.Isolation {
	case IsolationUsers:
		l.failDemand(s, "isolation", "the level users has uids of the host's machine, which a node does not have; use `isolation: namespaces`"+orHost)
	case IsolationFiles, IsolationNone:
		l.failDemand(s, "isolation", "a Space runs on a node at level namespaces only; use `isolation: namespaces`"+orHost)
	}
	if e.NodesByLease {
		l.failDemand(s, "gpu_nodes", "the device nodes of another machine cannot be opened for each call; use `gpu_nodes: always`"+orHost)
	}
}

// failDemand is fail at the key of a Space. A value that the Space has from the top level is a mistake of its `on`.
func (l *loader) failDemand(s *spaceEntry, key, text string) {
	if n, own := s.isolation.nodes[key]; own {
		n.fail("%s", text)
		return
	}
	s.onAt.fail("line %d sets `%s` for all Spaces: %s", l.isolation.nodes[key].line, key, text)
}

func onText(s SpaceSettings) string { return list(sorted(s.On)) }
