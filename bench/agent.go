package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The hosts that --agent compares. The difference to the first one is the cost of an agent.
const (
	withoutAgent = "without an agent"
	withAgent    = "agent: local"
	withNode     = "node"
)

// agentComparison is the hosts of --agent, which run at the same time. Each measurement alternates between them, so that other load
// on the machine slows all alike.
type agentComparison struct {
	*bench
	rotation
	level string // of isolation, the same for all
	hosts map[string]*agentHost
}

// agentHost is one host and, for a node, its agent.
type agentHost struct {
	*target
	node *exec.Cmd // nil: none
	gone chan struct{}
}

// agentStep is one measurement of --agent. It returns the values of each host.
type agentStep struct {
	step
	measure func(context.Context, *agentComparison) (map[string]values, error)
}

// agentSize is the amount of measurement of --agent in one round.
type agentSize struct {
	each    int           // calls of each kind on each host
	span    time.Duration // of the rate of 16 sessions
	posts   int           // requests for a GPU, 200 a second
	uploads int           // files
	file    int64         // bytes of an upload
}

var (
	fullAgents  = agentSize{each: 150, span: 2 * time.Second, posts: 800, uploads: 3, file: 256 << 20}
	shortAgents = agentSize{each: 6, span: 200 * time.Millisecond, posts: 20, uploads: 1, file: 8 << 20}
)

// agentSteps lists the rows of --agent.
func agentSteps(short bool) []agentStep {
	size := fullAgents
	if short {
		size = shortAgents
	}
	return []agentStep{
		{step{name: "calls", about: "calls of a plain function and of a @spaces.GPU function with a warm worker, one after another", lines: []line{
			{key: "plain_ms", text: "plain call, p50 ms", format: "%.2f", goal: "+0.4 ms"},
			{key: "gpu_ms", text: "warm GPU call, p50 ms", format: "%.2f"},
			{key: "over_ms", text: "GPU call over a plain one, ms", format: "%.2f", goal: "<= 3 ms"}}},
			func(ctx context.Context, c *agentComparison) (map[string]values, error) {
				return c.calls(ctx, size.each)
			}},
		{step{name: "noop-16", about: "no-op, 16 sessions, and CPU time of an event", lines: []line{
			{key: "per_s", text: "no-op, 16 sessions, events/s", format: "%.0f", goal: ">= 85 %"},
			{key: "host_us", text: "CPU of the host per event, us", format: "%.0f"},
			{key: "agent_us", text: "CPU of the agent per event, us", format: "%.0f"},
			{key: "space_us", text: "CPU of the Space per event, us", format: "%.0f"}}},
			func(ctx context.Context, c *agentComparison) (map[string]values, error) {
				return c.sessions(ctx, size.span)
			}},
		{step{name: "schedule", about: "/schedule with a free GPU, 200 a second, by a process of the Space", lines: []line{
			{key: "p50_ms", text: "/schedule at 200/s, p50 ms", format: "%.2f"},
			{key: "p99_ms", text: "/schedule at 200/s, p99 ms", format: "%.2f", goal: "+1 ms"}}},
			func(ctx context.Context, c *agentComparison) (map[string]values, error) {
				return c.schedule(ctx, size.posts)
			}},
		{step{name: "upload", about: "upload of a file", lines: []line{
			{key: "MB_s", text: fmt.Sprintf("upload of %d MiB, MB/s", size.file>>20), format: "%.0f", goal: ">= 60 %"}}},
			func(ctx context.Context, c *agentComparison) (map[string]values, error) {
				rates, err := c.uploads(ctx, size.uploads, size.file, c.scratch)
				return asValues("MB_s", rates), err
			}},
	}
}

// compareAgents measures the rounds of --agent.
func (b *bench) compareAgents(ctx context.Context) error {
	levels, err := b.availableLevels()
	if err != nil {
		return err
	}
	c := &agentComparison{bench: b, level: levels[len(levels)-1], hosts: map[string]*agentHost{}}
	b.columns = []string{withoutAgent, withAgent}
	if c.level == levelNamespaces {
		b.columns = append(b.columns, withNode)
	} else {
		c.level = levelNone
		b.printf("SKIPPED: a Space on a node is not measured, because it runs at level namespaces only")
	}
	defer c.stop()
	for _, name := range b.columns {
		if err := c.start(ctx, name); err != nil {
			return fmt.Errorf("start a host: %s: %w", name, err)
		}
	}
	for round := 1; round <= b.options.rounds; round++ {
		for _, s := range agentSteps(b.short) {
			if !b.wants(s.step) {
				continue
			}
			began := time.Now()
			all, err := s.measure(ctx, c)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, name := range b.columns {
				if v, ok := all[name]; ok {
					b.record(round, name, s.name, v, nil, began)
				}
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", s.name, round, err)
			}
		}
	}
	return nil
}

// start starts a host with the Space, and returns once the Space has answered calls.
func (c *agentComparison) start(ctx context.Context, name string) (err error) {
	home, err := os.MkdirTemp(c.scratch, "serve-")
	if err != nil {
		return err
	}
	h := &agentHost{target: &target{name: ours, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}}
	space := map[string]any{"folder": c.app, "name": "app", "address": "127.0.0.1:0", "isolation": c.level}
	config := map[string]any{
		"gpus": map[string]any{"machine": "mock:8xH200"}, "tiers": map[string]any{"unauthenticated": map[string]any{"unlimited": true}},
		"console": "127.0.0.1:0", "spaces": []any{space},
	}
	var front string
	switch name {
	case withAgent:
		config["agent"] = "local"
	case withNode:
		if front, err = freeAddr(); err != nil {
			return err
		}
		config["cluster"], space["on"] = map[string]any{"listen": front}, withNode
	}
	text, _ := json.Marshal(config) // plain values cannot fail
	file := filepath.Join(home, "serve.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	c.hosts[name] = h
	h.cmd = c.command(h, "serve", "--config", file, "--state", filepath.Join(home, "state"), "--ready-json")
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.begin(ctx, h, front); err != nil {
		return fmt.Errorf("%w\n%s", err, h.lastOutput())
	}
	c.spaces = append(c.spaces, &servedSpace{name: name, url: h.url, client: h.client})
	return nil
}

// command is a command line of spacehost. All hosts use one environment of the Space.
func (c *agentComparison) command(h *agentHost, args ...string) *exec.Cmd {
	command := exec.Command(c.spacehost, args...)
	command.Env = append(plainEnv(h.home), "SPACEHOST_ENVIRONMENTS="+c.environments)
	return command
}

// begin starts the processes of a host. front is the address for agents; empty: the host has no node.
func (c *agentComparison) begin(ctx context.Context, h *agentHost, front string) error {
	lines := make(chan string, 1)
	began, err := h.launch(lines)
	if err != nil {
		return err
	}
	var ready struct{ URL string }
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.URL == "" {
			return errors.New("the process exited, or its first line is not that of --ready-json")
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h.url = ready.URL
	if front != "" {
		if err := c.join(h, front); err != nil {
			return fmt.Errorf("join a node: %w", err)
		}
	}
	if err := h.awaitFirst(ctx, began); err != nil {
		return err
	}
	for _, api := range []string{"noop", "on_gpu"} {
		for range levelSizeFor(c.short).warmUp {
			if _, _, err := h.client.call(ctx, newHash(), api, `["warm"]`, `"warm"`); err != nil {
				return fmt.Errorf("warm up: %w", err)
			}
		}
	}
	return nil
}

// join starts the agent of a node.
func (c *agentComparison) join(h *agentHost, front string) error {
	text, err := c.command(h, "node", "token", "--state", filepath.Join(h.home, "state")).Output()
	if err != nil {
		return err
	}
	token := filepath.Join(h.home, "token")
	if err := os.WriteFile(token, text, 0o600); err != nil {
		return err
	}
	out, err := os.OpenFile(h.output, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	node := c.command(h, "agent", "--join", front, "--token-file", token, "--name", withNode, "--gpus", "mock:8xH200", "--state", filepath.Join(h.home, "node"))
	node.Stderr = out
	node.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := node.Start(); err != nil {
		return err
	}
	h.node, h.gone = node, make(chan struct{})
	go func() {
		_ = node.Wait() // it exits by our signal
		close(h.gone)
	}()
	return nil
}

func (c *agentComparison) stop() {
	c.rotation.close()
	for _, h := range c.hosts {
		if h.node != nil {
			_ = h.node.Process.Signal(syscall.SIGTERM) // it may have exited
			select {
			case <-h.gone:
			case <-time.After(10 * time.Second):
				_ = h.node.Process.Kill()
				<-h.gone
			}
		}
		h.stop()
	}
}

// usage returns the CPU time of a host, of its agent and of its Space.
func (h *agentHost) usage() (host, agent, space time.Duration) {
	all := descendants(h.cmd.Process.Pid)
	if h.node != nil {
		all = append(all, descendants(h.node.Process.Pid)...)
	}
	for i, p := range all {
		used := ticks(p.pid) * 10 * time.Millisecond
		switch command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)); { // the process may have exited
		case i == 0:
			host += used
		case strings.HasPrefix(string(command), h.cmd.Path+"\x00agent\x00"):
			agent += used
		default:
			space += used
		}
	}
	return host, agent, space
}

// callsInRow is the number of pairs of a plain and a GPU call that a host gets before it is the turn of the next.
const callsInRow = 15

// calls alternates between the hosts, and between plain and GPU calls.
func (c *agentComparison) calls(ctx context.Context, n int) (map[string]values, error) {
	took, err := c.times(ctx, n, callsInRow, noopCall, warmCall)
	all := map[string]values{}
	for name, times := range took {
		plain, gpu := percentile(times[0], 50), percentile(times[1], 50)
		all[name] = values{"plain_ms": plain, "gpu_ms": gpu, "over_ms": gpu - plain}
	}
	return all, err
}

// sessions measures 16 sessions on each host.
func (c *agentComparison) sessions(ctx context.Context, span time.Duration) (map[string]values, error) {
	all := map[string]values{}
	for _, s := range c.inTurn() {
		h := c.hosts[s.name]
		host, agent, space := h.usage()
		r := events(ctx, h.target, "noop", 16, span)
		if r.err != nil {
			return all, fmt.Errorf("%s: %w", s.name, r.err)
		}
		hostAfter, agentAfter, spaceAfter := h.usage()
		each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(len(r.took)) }
		all[s.name] = values{"per_s": r.perSecond, "host_us": each(hostAfter - host), "agent_us": each(agentAfter - agent), "space_us": each(spaceAfter - space)}
	}
	return all, nil
}

// schedule lets each Space request GPUs, and returns the times until the answers.
func (c *agentComparison) schedule(ctx context.Context, n int) (map[string]values, error) {
	all := map[string]values{}
	for _, s := range c.inTurn() {
		session := newHash()
		if err := s.client.join(ctx, session, "schedule", fmt.Sprintf("[%d]", n)); err != nil {
			return all, err
		}
		h, err := s.client.listen(ctx, session, nil)
		if err != nil {
			return all, err
		}
		var m struct{ Output struct{ Data []string } }
		var seconds []float64
		if err = json.Unmarshal(append([]byte(`{"msg":"`), h.completed...), &m); err == nil && len(m.Output.Data) == 1 {
			err = json.Unmarshal([]byte(m.Output.Data[0]), &seconds)
		}
		if err != nil || len(seconds) != n {
			return all, fmt.Errorf("%s: request %d GPUs: %w, got {\"msg\":\"%.300s", s.name, n, err, h.completed)
		}
		slices.Sort(seconds)
		at := func(percent int) float64 { return 1000 * seconds[min(n-1, n*percent/100)] }
		all[s.name] = values{"p50_ms": at(50), "p99_ms": at(99)}
	}
	return all, nil
}

// printAgents writes the table of --agent.
func (b *bench) printAgents(to io.Writer) {
	var steps []step
	for _, s := range agentSteps(b.short) {
		steps = append(steps, s.step)
	}
	b.printComparison(to, steps, "goal")
}
