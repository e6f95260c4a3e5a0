package config

import "go.yaml.in/yaml/v3"

// Cluster makes the host a front, which nodes join (internal/nodes).
type Cluster struct {
	Listen Setting // the address for agents of other machines; empty: the host is no front
}

// IsFront reports whether other machines may join the host as nodes.
func (s Settings) IsFront() bool { return s.Cluster.Listen.Value != "" }

func (l *loader) cluster(n node) {
	n.fields("a mapping with the key listen", map[string]func(node){
		"listen": func(at node) { l.address(at, &l.settings.Cluster.Listen) },
	})
	if n.yaml.Kind == yaml.MappingNode && len(n.yaml.Content) == 0 {
		n.fail("has no `listen`; set the address for agents, such as 10.0.0.5:7443")
	}
}
