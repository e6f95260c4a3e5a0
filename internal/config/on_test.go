package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const front = "cluster: {listen: '127.0.0.1:7443'}\n"

func TestOn(t *testing.T) {
	for _, row := range []struct {
		text   string // after `on`
		want   []string
		onNode bool
	}{
		{"", nil, false},
		{", on: h200", []string{"h200"}, true},
		{", on: [gpu2, h200]", []string{"gpu2", "h200"}, true},
		{", on: host", []string{"host"}, false},
		{", on: host, isolation: none", []string{"host"}, false},
		{", on: gpu2, isolation: auto", []string{"gpu2"}, true},
		{", on: [host], mounts: [/usr], data: /usr, source: rw", []string{"host"}, false},
		{", on: [host, h200], data: true, source: ro, cache: private, egress: none, limits: {memory: 8GiB}", []string{"host", "h200"}, true},
	} {
		s, _, err := configIn(t, front+"spaces:\n- {folder: demo, address: ':1'"+row.text+"}\n")
		if err != nil {
			t.Errorf("%q: %v", row.text, err)
			continue
		}
		if got := s.Spaces[0]; !slices.Equal(got.On, row.want) || got.MayRunOnNode() != row.onNode {
			t.Errorf("%q: %q, may run on a node: %t", row.text, got.On, got.MayRunOnNode())
		}
	}
}

func TestOnRefuses(t *testing.T) {
	const orHost = ", or use `on: host`"
	words := make([]string, maxOn+1)
	for i := range words {
		words[i] = "n" + strings.Repeat("x", i)
	}
	for _, row := range []struct{ name, top, keys, want string }{
		{"no nodes", " ", "on: gpu2", "lab.yaml:3: spaces[0].on: has no effect without nodes; add `cluster: {listen: ADDRESS}`, or remove `on`"},
		{"no nodes, the host", " ", "on: host", "has no effect without nodes"},
		{"an empty list", front, "on: []", "lab.yaml:4: spaces[0].on: is empty; add the name or a label of a node, or remove the key to run the Space on this machine"},
		{"a mapping", front, "on: {gpu: 2}", "spaces[0].on: must be a list of names and labels of nodes"},
		{"a number", front, "on: 7", "spaces[0].on: YAML does not read 7 as text"},
		{"spelling", front, "on: [gpu1, GPU2]", `spaces[0].on[1]: "GPU2" cannot be the name or a label of a node; use at most 63 lower-case letters`},
		{"twice", front, "on: [gpu1, gpu1]", "spaces[0].on[1]: duplicate name or label gpu1; remove one of them"},
		{"too many", front, "on: [" + strings.Join(words, ", ") + "]", "spaces[0].on: has 33 names and labels; give at most 32"},
		{"mounts", front, "on: gpu2, mounts: [/usr]", "spaces[0].mounts: are paths of the host's machine, which a node does not have; remove `mounts`" + orHost},
		{"data", front, "on: [host, gpu2], data: /usr", "spaces[0].data: is a path of the host's machine, which a node does not have; use `data: true` for a folder on the node" + orHost},
		{"source", front, "on: gpu2, source: rw", "spaces[0].source: a node has a copy of the folder, so writes would not reach it; use `source: overlay` or `source: ro`" + orHost},
		{"python", front, "on: gpu2, python: /bin/sh", "spaces[0].python: is a path of the host's machine, which a node does not have; remove `python` so that the node builds the environment" + orHost},
		{"gpu_nodes", front, "on: gpu2, gpu_nodes: lease", "spaces[0].gpu_nodes: the device nodes of another machine cannot be opened for each call; use `gpu_nodes: always`" + orHost},
		{"gpu_nodes of all", front + "gpu_nodes: lease\n", "on: gpu2", "spaces[0].on: line 2 sets `gpu_nodes` for all Spaces: the device nodes of another machine cannot be opened for each call"},
		{"isolation", front + "users: 200000-200999\n", "on: gpu2, isolation: users", "spaces[0].isolation: the level users has uids of the host's machine, which a node does not have; use `isolation: namespaces`" + orHost},
		{"a lower level", front, "on: [host, gpu2], isolation: files", "spaces[0].isolation: a Space runs on a node at level namespaces only; use `isolation: namespaces`" + orHost},
		{"a lower level of all", front + "isolation: none\n", "on: gpu2", "spaces[0].on: line 2 sets `isolation` for all Spaces: a Space runs on a node at level namespaces only"},
	} {
		_, _, err := configIn(t, row.top+"\nspaces:\n- {folder: demo, address: ':1', "+row.keys+"}\n")
		if wrong := (*FileError)(nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v\nwant ... %s", row.name, err, row.want)
		}
	}
}
