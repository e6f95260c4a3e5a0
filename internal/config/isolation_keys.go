package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// isolationEntry holds the isolation keys of a Space, or of the top level, with their nodes for the cross checks. hasLevel
// tells `isolation: none` from a key that is not set.
type isolationEntry struct {
	IsolationSettings
	nodes    map[string]node // by key; limits also as limits.memory and so on
	calls    []memberNode
	mounts   []node // parallel to Mounts
	hasLevel bool
}

// read returns a function that notes the node of a key and then reads it.
func (e *isolationEntry) read(key string, read func(node)) func(node) {
	return func(n node) {
		if e.nodes == nil {
			e.nodes = map[string]node{}
		}
		e.nodes[key] = n
		read(n)
	}
}

// commonKeys returns the readers of the isolation keys of the top level and of a Space.
func (e *isolationEntry) commonKeys() map[string]func(node) {
	return map[string]func(node){
		"isolation": e.read("isolation", func(n node) { e.hasLevel = parseNode(n, ParseIsolation, &e.Isolation) }),
		"egress":    e.read("egress", e.egress),
		"reach": e.read("reach", func(n node) {
			n.texts("private addresses", func(at node, text string) {
				if to, err := ParseReach(text); err != nil {
					at.fail("%v", err)
				} else {
					e.Reach = append(e.Reach, to)
				}
			})
		}),
		"limits": e.read("limits", e.limits),
		"gpu_nodes": e.read("gpu_nodes", func(n node) {
			text, ok := n.oneOf("always", "lease")
			e.NodesByLease = ok && text == "lease"
		}),
	}
}

// spaceKeys returns the readers of the isolation keys of a Space alone.
func (e *isolationEntry) spaceKeys(l *loader) map[string]func(node) {
	keys := e.commonKeys()
	maps.Copy(keys, map[string]func(node){
		"source": e.read("source", func(n node) { parseNode(n, ParseSourceMode, &e.SourceMode) }),
		"data": e.read("data", func(n node) {
			parseNode(n, func(text string) (Data, error) { return ParseData(text, l.folder) }, &e.Data)
		}),
		"cache": e.read("cache", func(n node) {
			text, ok := n.oneOf("shared", "private")
			e.PrivateCache = ok && text == "private"
		}),
		"mounts": e.read("mounts", func(n node) { n.texts("paths", e.mount) }),
		"calls": e.read("calls", func(n node) {
			e.Calls = []string{} // a list without names allows no calls
			n.texts("names of Spaces", func(at node, name string) { e.calls = append(e.calls, memberNode{at, name}) })
		}),
	})
	return keys
}

// parseNode stores the value of a scalar, unless parse refuses it.
func parseNode[T any](n node, parse func(string) (T, error), into *T) bool {
	text, ok := n.scalar()
	if !ok {
		return false
	}
	value, err := parse(text)
	if err != nil {
		n.fail("%v", err)
		return false
	}
	*into = value
	return true
}

// egress reads one word, a list of host names, or a mapping of names and ports.
func (e *isolationEntry) egress(n node) {
	switch n.yaml.Kind {
	case yaml.SequenceNode:
		e.egressNames(n)
	case yaml.MappingNode:
		n.failIfEmpty()
		n.fields("a mapping with the keys names and ports", map[string]func(node){"names": e.egressNames, "ports": e.egressPorts})
	default:
		parseNode(n, ParseEgress, &e.Egress)
	}
}

// failIfEmpty refuses an empty list or mapping, which can be read as no connections and as any connection.
func (n node) failIfEmpty() {
	if n.yaml.Kind != yaml.ScalarNode && len(n.yaml.Content) == 0 {
		n.fail("is empty; use `egress: none` to allow no connections, or remove the key")
	}
}

func (e *isolationEntry) egressNames(n node) {
	n.failIfEmpty()
	n.texts("host names", func(at node, text string) {
		name, err := parseEgressName(text)
		if err != nil {
			at.fail("%v", err)
			return
		}
		e.Egress.Mode = EgressListed
		e.Egress.Names = append(e.Egress.Names, name)
	})
}

func (e *isolationEntry) egressPorts(n node) {
	n.failIfEmpty()
	n.list("ports", func(at node) {
		if text, ok := at.scalar(); ok {
			if err := e.Egress.addPort(text); err != nil {
				at.fail("%v", err)
			}
		}
	})
}

// limits reads the limits of a Space, and notes the node of each.
func (e *isolationEntry) limits(n node) { n.limits(&e.Limits, LimitKeys(), e.read) }

// limits reads each limit with the parser of --limit. read may be nil.
func (n node) limits(into *Limits, keys []string, read func(key string, read func(node)) func(node)) {
	known := map[string]func(node){}
	for _, key := range keys {
		known[key] = func(at node) {
			if text, ok := at.scalar(); ok {
				if err := into.Set(key, text); err != nil {
					at.fail("%v", err)
				}
			}
		}
		if read != nil {
			known[key] = read("limits."+key, known[key])
		}
	}
	n.fields("a mapping of limits ("+strings.Join(keys, ", ")+")", known)
}

func (e *isolationEntry) mount(n node, text string) {
	mount, err := ParseMount(text)
	if err != nil {
		n.fail("%v", err)
		return
	}
	e.Mounts = append(e.Mounts, mount)
	e.mounts = append(e.mounts, n)
}

// checkIsolation checks the isolation keys of a Space, and applies the defaults of the top level.
func (l *loader) checkIsolation(s *spaceEntry, spaces []string) {
	e, top := &s.isolation, &l.isolation
	l.checkPaths(e)
	for _, call := range e.calls {
		if !slices.Contains(spaces, call.name) {
			call.fail("unknown Space %.97q; %s", call.name, suggest(call.name, spaces, "Spaces defined in this file: "))
			continue
		}
		e.Calls = append(e.Calls, call.name)
	}
	if !e.hasLevel {
		e.Isolation = top.Isolation
	}
	if _, own := e.nodes["egress"]; !own {
		e.Egress = top.Egress
	}
	if _, own := e.nodes["gpu_nodes"]; !own {
		e.NodesByLease = top.NodesByLease
	}
	e.Limits = e.Limits.or(top.Limits)
	l.checkLevel(s)
	for _, to := range top.Reach { // after checkLevel: a Space below IsolationNamespaces reaches these addresses anyway
		if !slices.Contains(e.Reach, to) {
			e.Reach = append(e.Reach, to)
		}
	}
	s.IsolationSettings = e.IsolationSettings
	s.Places = l.places(s)
}

// checkPaths checks the targets of mounts and the folder at /data.
func (l *loader) checkPaths(e *isolationEntry) {
	for i, mount := range e.Mounts {
		l.checkMount(e.mounts[i], mount.Path)
	}
	if err := e.Data.checkFolder(); err != nil {
		e.nodes["data"].fail("%v", err)
	} else if e.Data.Path != "" {
		l.checkMount(e.nodes["data"], e.Data.Path)
	}
}

func (l *loader) checkMount(n node, path string) {
	switch warning, err := CheckMount(path, l.stateFolder()); {
	case err != nil:
		n.fail("%v", err)
	case warning != "":
		l.warn(n, "%s", warning)
	}
}

// stateFolder returns the state folder in force: that of --state, of the file, or the default.
func (l *loader) stateFolder() string {
	if l.stateFlag != "" {
		return l.stateFlag
	}
	state, _ := StateFolder(l.settings.State) // the command line reports the error
	return state
}

// weakest are the values, of the keys that the top level may set for all Spaces, that every level enforces.
var weakest = map[string]string{"egress": "hub", "gpu_nodes": "always"}

// checkLevel refuses keys that the level of a Space does not enforce, and a level without its uids.
func (l *loader) checkLevel(s *spaceEntry) {
	e := &s.isolation
	level, own := e.nodes["isolation"]
	if !own {
		level = l.isolation.nodes["isolation"]
	}
	for _, d := range e.unmetDemands() {
		n, own := e.nodes[d.key]
		remedy := "remove this key"
		if !own {
			n, remedy = l.isolation.nodes[d.key], fmt.Sprintf("give that Space its own `%s: %s`", d.key, weakest[d.key])
		}
		l.failOnce(n, "requires `isolation: %s`, but line %d sets `%s: %s`; change line %[2]d, or %[5]s", d.least, level.line, level.path, e.Isolation, remedy)
	}
	if e.Isolation == IsolationUsers && !l.usersAt.isPresent() {
		l.failOnce(level, "the level users requires uids for the Spaces; add the key `users`, such as `users: 200000-200999`")
	}
}

// failOnce is like fail, but reports a mistake of a top-level key once for all Spaces.
func (l *loader) failOnce(n node, format string, args ...any) {
	n.fail(format, args...)
	last := len(l.problems) - 1
	if slices.Contains(l.problems[:last], l.problems[last]) {
		l.problems = l.problems[:last]
	}
}

// places returns where the values of a Space come from. The level has a place even if the file does not set it.
func (l *loader) places(s *spaceEntry) map[string]Place {
	level := s.at.place()
	level.Key += ".isolation"
	all := map[string]Place{"isolation": level}
	for _, nodes := range []map[string]node{l.isolation.nodes, s.isolation.nodes} {
		for key, n := range nodes {
			all[key] = n.place()
		}
	}
	return all
}

// users reads the range of uids for Spaces.
func (l *loader) users(n node) {
	l.usersAt = n
	if parseNode(n, ParseUIDs, &l.settings.Users) {
		l.settings.UsersPlace = n.place()
	}
}

// checkUsers checks that the host can use the uids, and that they suffice.
func (l *loader) checkUsers() {
	switch uids := l.settings.Users; {
	case uids == UIDs{}:
	case !l.isRoot:
		l.usersAt.fail("only root can run Spaces with other uids; start spacehost as root, or remove `users`")
	case uids.Len() < len(l.spaces):
		l.usersAt.fail("%s has %d uids for %d Spaces; give a range with at least one uid per Space", uids, uids.Len(), len(l.spaces))
	case !slices.ContainsFunc(l.spaces, func(s spaceEntry) bool { return s.IsolationSettings.Isolation == IsolationUsers }):
		l.warn(l.usersAt, "no Space uses these uids; set `isolation: users`, or remove `users`")
	}
}
