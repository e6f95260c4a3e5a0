package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"spacehost/internal/host"
	"spacehost/internal/lazyregexp"
	"spacehost/internal/views"
)

// nodeVariable makes each `serve` of the tests run its Spaces on a node (`make node-suite`): the harness starts its agent on loopback. A
// file with `agent` or `cluster` stays as it is, and so does what `run` runs.
const nodeVariable = "SPACEHOST_TEST_NODE"

// suiteNode is the node of a state folder. It outlasts the hosts of the folder, and ends with the test.
type suiteNode struct {
	listen string // address of the front for agents
	home   string // below the state folder, so that processesOf finds the Spaces
	gpus   []string
	agent  *nodeAgent
}

var suiteNodes = struct {
	sync.Mutex
	of map[string]*suiteNode // by state folder
}{of: map[string]*suiteNode{}}

func isNodeSuite() bool { return os.Getenv(nodeVariable) != "" }

// requireOwnMachine skips a test of what a Space on a node does not have by design (docs/nodes.md).
func requireOwnMachine(t testing.TB, why string) {
	t.Helper()
	if isNodeSuite() {
		t.Skipf("not with %s: %s", nodeVariable, why)
	}
}

var (
	pythonKey = lazyregexp.New(`,\s*python: [^,}\s]+|\n\s+python: \S+`)
	spaceKey  = lazyregexp.New(`(?m)^(\s*)- (\{?)folder: `)
	ownGPUs   = lazyregexp.New(`(?:machine|gpus): ['"]?(mock:[^,}\s'"]+)`)
	ownShare  = lazyregexp.New(`large: ([0-9/]+)`)
)

// nodeOf returns the node of a state folder; nil if there is none.
func nodeOf(state string) *suiteNode {
	suiteNodes.Lock()
	defer suiteNodes.Unlock()
	return suiteNodes.of[state]
}

// stateOfSpaces returns the state folder with the files of the Spaces.
func (p *product) stateOfSpaces() string {
	if n := nodeOf(p.State); n != nil {
		return n.home
	}
	return p.State
}

// withNode is onNode for the file of a `serve`.
func withNode(t testing.TB, state string, args []string) *suiteNode {
	t.Helper()
	if at := slices.Index(args, "--config"); args[0] == "serve" && at > 0 {
		return onNode(t, state, args[at+1])
	}
	return nil
}

// onNode lets the Spaces of a file run on a node of the host with this state folder. It returns nil if they stay.
func onNode(t testing.TB, state, file string) *suiteNode {
	t.Helper()
	if !isNodeSuite() {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	suiteNodes.Lock()
	defer suiteNodes.Unlock()
	n := suiteNodes.of[state]
	if strings.Contains(text, "cluster:") || strings.Contains(text, "agent:") {
		return n
	}
	if n == nil {
		n = &suiteNode{listen: freeAddress(t), home: filepath.Join(state, "node-of-the-suite")}
		suiteNodes.of[state] = n
	}
	n.gpus = nil
	if found := ownGPUs.FindStringSubmatch(text); found != nil {
		n.gpus = append(n.gpus, "--gpus", found[1])
	}
	if found := ownShare.FindStringSubmatch(text); found != nil {
		n.gpus = append(n.gpus, "--large", found[1])
	}
	key := "cluster: {listen: \"" + n.listen + "\"}"
	if !strings.HasPrefix(text, "\n") {
		key += "\n"
	}
	text = pythonKey.ReplaceAllString(text, "")
	text = spaceKey.ReplaceAllStringFunc(text, func(found string) string {
		if before, isFlow := strings.CutSuffix(found, "- {folder: "); isFlow {
			return before + "- {on: gpu2, folder: "
		}
		before := strings.TrimSuffix(found, "- folder: ")
		return before + "- on: gpu2\n" + before + "  folder: "
	})
	if err := os.WriteFile(file, []byte(key+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// pythonOf returns the interpreter that the node has built for a Space. Hashes in Gradio's answers depend on its folder.
func (n *suiteNode) pythonOf(t testing.TB, space string) string {
	t.Helper()
	for line := range strings.Lines(n.agent.text()) {
		if strings.Contains(line, `"msg":"environment ready","space":"`+space+`"`) {
			_, after, _ := strings.Cut(line, `"python":"`)
			python, _, _ := strings.Cut(after, `"`)
			return python
		}
	}
	t.Fatalf("the node has built no environment of %s", space)
	return ""
}

// join starts the agent, unless it was started, and waits until the Spaces run or have failed. The ready line of the host is from before that.
func (n *suiteNode) join(p *product, env []string) {
	p.t.Helper()
	if n.agent == nil {
		args := slices.Concat([]string{"--token-file", p.joinToken("--name", "gpu2"), "--name", "gpu2"}, n.gpus)
		n.agent = startAgentWith(p.t, env, n.listen, n.home, args...)
		p.t.Cleanup(func() {
			suiteNodes.Lock()
			defer suiteNodes.Unlock()
			delete(suiteNodes.of, p.State)
			if p.t.Failed() {
				p.t.Logf("output of the agent:\n%s", n.agent.text())
			}
		})
	}
	var health views.Health
	eventually(p.t, "the Spaces on the node run or have failed", 2*patience, func() bool {
		health = controlJSON[views.Health](p.t, p, "/healthz")
		return !slices.ContainsFunc(health.Spaces, func(s views.Space) bool {
			return s.Stage != "RUNNING" && s.Stage != "PAUSED" && !strings.HasSuffix(s.Stage, "_ERROR")
		})
	})
	for _, s := range health.Spaces {
		at := slices.IndexFunc(p.Spaces, func(r host.ReadySpace) bool { return r.Name == s.Name })
		p.Spaces[at].Stage, p.Spaces[at].Gradio, p.Spaces[at].Level = s.Stage, s.Gradio, s.Isolation
	}
}
