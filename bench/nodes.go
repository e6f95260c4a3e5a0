package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"spacehost/internal/control"
)

// nodeStep is one row of --nodes.
type nodeStep struct {
	step
	measure func(context.Context, *nodeBench) (values, error)
}

// nodeSteps lists the rows of --nodes. The rows of a serve are measured on `spacehost serve`, the others on a front without visitors
// (nodes_front.go), which requests leases itself.
func nodeSteps() []nodeStep {
	return []nodeStep{
		{step{name: "connect", about: "all nodes connect at the same time to spacehost serve", lines: []line{
			{key: "control_s", text: "serve: all nodes have connected, s"},
			{key: "all_s", text: "serve: all connections are open, s"},
			{key: "cpu_s", text: "serve: CPU of the front until then, s"}}}, connectNodes},
		{step{name: "idle", about: "spacehost serve with all nodes, and no call", lines: []line{
			{key: "cpu", text: "serve: CPU of the front without calls, % of a core"},
			{key: "mb", text: "serve: memory of the front, MB", format: "%.0f"},
			{key: "peak_mb", text: "serve: its highest, MB", format: "%.0f", goal: "<= 400"}}}, idleNodes},
		{step{name: "views", about: "what operators read from spacehost serve", lines: []line{
			{key: "nodes_ms", text: "serve: list of nodes, ms", format: "%.0f"},
			{key: "gpus_ms", text: "serve: list of GPUs, ms", format: "%.0f"},
			{key: "metrics_ms", text: "serve: /metrics, ms", format: "%.0f"},
			{key: "metrics_mb", text: "serve: /metrics, MB"}}}, viewNodes},
		{step{name: "restart", about: "spacehost serve is killed and started again", lines: []line{
			{key: "control_s", text: "serve: killed and started, all nodes have connected, s"},
			{key: "all_s", text: "serve: killed and started, all connections are open, s"}}}, restartFront},
		{step{name: "load", about: "leases on all nodes", lines: []line{
			{key: "open", text: "load: leases under way", format: "%.0f"},
			{key: "per_s", text: "load: grants a second", format: "%.0f"},
			{key: "grant_p50_ms", text: "load: request to grant, p50 ms"},
			{key: "grant_p99_ms", text: "load: request to grant, p99 ms", goal: "<= 10"},
			{key: "allow_p99_ms", text: "load: /allow, p99 ms"},
			{key: "release_p99_ms", text: "load: /release, p99 ms"},
			{key: "fsync_ms", text: "load: one fsync at the same time, p99 ms"},
			{key: "cpu", text: "load: CPU of the front, % of a core", format: "%.0f", goal: "<= 100"},
			{key: "peak_mb", text: "load: highest memory of the front, MB", format: "%.0f", goal: "<= 400"}}}, loadNodes},
		{step{name: "attack", about: "the same, while a compromised node floods the front, and a client without a certificate keeps 1,000 connections", lines: []line{
			{key: "grant_p50_ms", text: "attack: request to grant on the other nodes, p50 ms"},
			{key: "grant_p99_ms", text: "attack: request to grant on the other nodes, p99 ms", goal: "<= 10"},
			{key: "messages_s", text: "attack: messages of the compromised node a second", format: "%.0f"},
			{key: "links", text: "attack: its links that the front has closed", format: "%.0f"},
			{key: "connections", text: "attack: connections of the client that the front has closed", format: "%.0f"},
			{key: "cpu", text: "attack: CPU of the front, % of a core", format: "%.0f"},
			{key: "peak_mb", text: "attack: highest memory of the front, MB", format: "%.0f", goal: "<= 400"}}}, attackNodes},
		{step{name: "cut", about: "all connections are reset at once, with leases under way", lines: []line{
			{key: "control_s", text: "cut: all nodes have connected again, s", goal: "<= 5"},
			{key: "all_s", text: "cut: all connections are open again, s", goal: "<= 15"},
			{key: "lost", text: "cut: requests that failed", format: "%.0f"},
			{key: "settled", text: "cut: leases settled once, %", goal: "100"}}}, cutNodes},
	}
}

// nodeSize is the amount of measurement of --nodes.
type nodeSize struct {
	nodes, rate int
	hold        time.Duration // of each lease
	span        time.Duration // of a measurement
}

func (o options) nodeSize() nodeSize {
	if o.short {
		return nodeSize{nodes: 20, rate: 20, hold: time.Second, span: 2 * time.Second}
	}
	return nodeSize{nodes: 1000, rate: 200, hold: 10 * time.Second, span: 30 * time.Second}
}

// awaitNodesTimeout bounds the time until all nodes have connected.
const awaitNodesTimeout = 3 * time.Minute

// nodeBench is a front, as a process, with its nodes in this process.
type nodeBench struct {
	*bench
	nodeSize
	home  string
	swarm *swarm
	front *target
	began time.Time // of the agents

	cluster, console, socket string // of serve
	stdin                    io.Writer
	answers                  *bufio.Scanner
}

// measureNodes measures the rounds of --nodes.
func (b *bench) measureNodes(ctx context.Context) error {
	for round := 1; round <= b.options.rounds; round++ {
		for _, kind := range [][]string{{"connect", "idle", "views", "restart"}, {"load", "attack", "cut"}} {
			if err := b.measureFront(ctx, round, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureFront measures the rows of one front.
func (b *bench) measureFront(ctx context.Context, round int, rows []string) (err error) {
	var steps []nodeStep
	for _, s := range nodeSteps() {
		if slices.Contains(rows, s.name) && b.wants(s.step) {
			steps = append(steps, s)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	n := &nodeBench{bench: b, nodeSize: b.options.nodeSize()}
	if n.home, err = os.MkdirTemp(b.scratch, "nodes-"); err != nil {
		return err
	}
	b.printf("joining %d nodes ...", n.nodes)
	if err := joinNodes(ctx, n.state(), n.agents(), n.nodes); err != nil {
		return fmt.Errorf("join nodes: %w", err)
	}
	defer n.stop()
	if slices.Contains(rows, "load") {
		err = n.startLoadFront(ctx)
	} else {
		err = n.startServe(ctx)
	}
	if err != nil {
		return err
	}
	n.began = time.Now()
	if n.swarm, err = startSwarm(n.cluster, n.agents(), n.nodes); err != nil {
		return err
	}
	for _, s := range steps {
		began := time.Now()
		v, err := s.measure(ctx, n)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.record(round, ours, s.name, v, err, began)
	}
	return nil
}

func (n *nodeBench) state() string  { return filepath.Join(n.home, "state") }
func (n *nodeBench) agents() string { return filepath.Join(n.home, "agents") }

func (n *nodeBench) stop() {
	if n.swarm != nil {
		n.swarm.end()
	}
	if n.front != nil {
		n.front.stop()
	}
}

// startServe starts `spacehost serve` with a Space that has no app.
func (n *nodeBench) startServe(ctx context.Context) error {
	if n.cluster == "" {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		n.cluster = addr
	}
	if err := os.MkdirAll(filepath.Join(n.home, "empty"), 0o700); err != nil {
		return err
	}
	file := filepath.Join(n.home, "lab.yaml")
	text := fmt.Sprintf("gpus: mock:1xH200\nconsole: 127.0.0.1:0\nisolation: none\ncluster: {listen: %q}\nspaces:\n- {folder: empty, address: \"127.0.0.1:0\"}\n", n.cluster)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	s := &target{name: ours, home: filepath.Join(n.home, "serve"), output: filepath.Join(n.home, "output.txt"), ended: make(chan struct{})}
	s.cmd = exec.Command(n.spacehost, "serve", "--config", file, "--state", n.state(), "--ready-json")
	s.cmd.Env = plainEnv(n.home)
	lines := make(chan string, 1)
	if _, err := s.launch(lines); err != nil {
		return err
	}
	n.front = s
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var ready struct{ ConsoleLocal, Socket, Cluster string }
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.Cluster == "" {
			return fmt.Errorf("start the front: it exited, or its first line is not that of --ready-json\n%s", s.lastOutput())
		}
	case <-ctx.Done():
		return fmt.Errorf("start the front: %w\n%s", context.Cause(ctx), s.lastOutput())
	}
	n.console, n.socket = ready.ConsoleLocal, ready.Socket
	return nil
}

// startLoadFront starts this program as a front.
func (n *nodeBench) startLoadFront(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s := &target{name: ours, home: filepath.Join(n.home, "front"), output: filepath.Join(n.home, "output.txt"), ended: make(chan struct{})}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(plainEnv(n.home), frontVariable+"="+n.state())
	if n.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	pipe, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	out, err := os.Create(s.output)
	if err != nil {
		return err
	}
	defer out.Close()
	s.cmd.Stderr, s.cmd.SysProcAttr = out, &syscall.SysProcAttr{Setpgid: true} // as launch
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go s.reap()
	n.front, n.answers = s, bufio.NewScanner(pipe)
	defer context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })()
	if !n.answers.Scan() {
		return fmt.Errorf("start the front: %s", s.lastOutput())
	}
	n.cluster = n.answers.Text()
	return nil
}

// send sends a line to the front and returns its answer.
func (n *nodeBench) send(line string) (r loadReport, err error) {
	if _, err := fmt.Fprintln(n.stdin, line); err != nil {
		return r, err
	}
	if !n.answers.Scan() {
		return r, fmt.Errorf("the front has ended: %s", n.front.lastOutput())
	}
	if text := n.answers.Bytes(); !bytes.Equal(text, []byte(`"ok"`)) {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// awaitNodes waits until all nodes have connected since began.
func (n *nodeBench) awaitNodes(ctx context.Context, began time.Time) (values, error) {
	ctx, cancel := context.WithTimeout(ctx, awaitNodesTimeout)
	defer cancel()
	controlled, all, err := n.swarm.awaitAll(ctx, began)
	return values{"control_s": controlled.Seconds(), "all_s": all.Seconds()}, err
}

func connectNodes(ctx context.Context, n *nodeBench) (values, error) {
	before := usageOf(n.front.cmd.Process.Pid)
	v, err := n.awaitNodes(ctx, n.began)
	v["cpu_s"] = (usageOf(n.front.cmd.Process.Pid).cpu - before.cpu).Seconds()
	return v, err
}

func idleNodes(ctx context.Context, n *nodeBench) (values, error) {
	if _, err := n.awaitNodes(ctx, n.began); err != nil {
		return nil, err
	}
	return n.used(ctx, n.span)
}

// used measures CPU and memory of the front.
func (n *nodeBench) used(ctx context.Context, span time.Duration) (values, error) {
	before, began := usageOf(n.front.cmd.Process.Pid), time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	after := usageOf(n.front.cmd.Process.Pid)
	if after.peak == 0 {
		return nil, fmt.Errorf("the front has ended: %s", n.front.lastOutput())
	}
	return values{
		"cpu": 100 * (after.cpu - before.cpu).Seconds() / time.Since(began).Seconds(), "mb": float64(after.memory) / 1e6, "peak_mb": float64(after.peak) / 1e6,
	}, nil
}

func viewNodes(ctx context.Context, n *nodeBench) (values, error) {
	key, err := control.ReadKey(n.state())
	if err != nil {
		return nil, err
	}
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
	}}}
	defer socket.CloseIdleConnections()
	v := values{}
	for name, view := range map[string]struct {
		client *http.Client
		url    string
	}{
		"nodes": {socket, "http://spacehost" + control.ListNodes.Path}, "gpus": {socket, "http://spacehost" + control.ListGPUs.Path},
		"metrics": {http.DefaultClient, n.console + "/metrics"},
	} {
		var took []time.Duration
		for range 3 {
			began := time.Now()
			size, err := fetchView(ctx, view.client, view.url, key)
			if err != nil {
				return v, err
			}
			took = append(took, time.Since(began))
			v[name+"_mb"] = float64(size) / 1e6
		}
		slices.Sort(took)
		v[name+"_ms"] = percentile(took, 50)
	}
	return v, nil
}

// fetchView reads an answer, and returns its size.
func fetchView(ctx context.Context, client *http.Client, url, key string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set(control.KeyHeader, key)
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.Copy(io.Discard, answer.Body)
}

func restartFront(ctx context.Context, n *nodeBench) (values, error) {
	if _, err := n.awaitNodes(ctx, n.began); err != nil {
		return nil, err
	}
	_ = n.front.cmd.Process.Kill() // it may have exited
	<-n.front.ended
	began := time.Now()
	if err := n.startServe(ctx); err != nil {
		return nil, err
	}
	return n.awaitNodes(ctx, began)
}

// beginLoad begins the load, and waits until as many leases are under way as there will be.
func (n *nodeBench) beginLoad(ctx context.Context) error {
	if _, err := n.awaitNodes(ctx, n.began); err != nil {
		return err
	}
	order, err := json.Marshal(loadOrder{n.nodes, n.rate, n.hold})
	if err != nil {
		return err
	}
	if _, err := n.send(string(order)); err != nil {
		return err
	}
	select {
	case <-time.After(n.hold + n.span/10):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err = n.send("mark")
	return err
}

// underLoad measures the front for a span, and returns what has happened since the last mark.
func (n *nodeBench) underLoad(ctx context.Context) (v values, r loadReport, err error) {
	if v, err = n.used(ctx, n.span); err == nil {
		r, err = n.send("mark")
	}
	return v, r, err
}

func loadNodes(ctx context.Context, n *nodeBench) (values, error) {
	if err := n.beginLoad(ctx); err != nil {
		return nil, err
	}
	v, r, err := n.underLoad(ctx)
	if err != nil {
		return nil, err
	}
	v["open"], v["per_s"], v["fsync_ms"] = float64(r.Open), float64(r.Grants)/r.Seconds, percentile(fsyncs(n.home, 0), 99)
	for key, step := range map[string]string{"grant_p50_ms": "grant", "grant_p99_ms": "grant", "allow_p99_ms": "allow", "release_p99_ms": "release"} {
		v[key] = r.P99[step]
		if strings.Contains(key, "p50") {
			v[key] = r.P50[step]
		}
	}
	return v, r.wrong(0)
}

// wrong returns the failed requests as an error.
func (r loadReport) wrong(allowed int) error {
	failed := 0
	for _, n := range r.Wrong {
		failed += n
	}
	if failed <= allowed {
		return nil
	}
	first := slices.Sorted(maps.Keys(r.Wrong))[0]
	return &wrongError{failed, failed + r.Grants, errors.New(first)}
}

func cutNodes(ctx context.Context, n *nodeBench) (values, error) {
	if !n.wants(step{name: "load"}) && !n.wants(step{name: "attack"}) {
		if err := n.beginLoad(ctx); err != nil {
			return nil, err
		}
	}
	began := n.swarm.cut()
	v, err := n.awaitNodes(ctx, began)
	if err != nil {
		return v, err
	}
	select {
	case <-time.After(n.hold): // leases of the time of the cut end
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
	r, err := n.send("end")
	if err != nil {
		return v, err
	}
	for _, failed := range r.Wrong {
		v["lost"] += float64(failed)
	}
	if _, set := v["lost"]; !set {
		v["lost"] = 0
	}
	ended, settled, err := settledOnce(ctx, n.state())
	if err == nil && (ended == 0 || ended != settled) {
		err = fmt.Errorf("%d of %d ended leases were settled once", settled, ended)
	}
	v["settled"] = 100 * float64(settled) / float64(max(1, ended))
	return v, err
}

// printNodes writes the table of --nodes.
func (b *bench) printNodes(to io.Writer) {
	size := b.options.nodeSize()
	b.report.printMachine(to)
	fmt.Fprintf(to, "%d nodes with %d simulated GPUs each; median of %d rounds (first and third quartile). The front and all agents share the cores of this machine.\n\n",
		size.nodes, devicesPerNode, b.report.lastRound())
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tfront\tgoal")
	for _, s := range nodeSteps() {
		for _, l := range s.lines {
			if b.wants(s.step) {
				format := l.format
				if format == "" {
					format = "%.1f"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", l.text, spread(b.report.byRound(ours, s.name, l.key), format), l.goal)
			}
		}
	}
	t.Flush()
	b.report.printWrong(to)
}
