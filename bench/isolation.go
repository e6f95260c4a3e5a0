package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"spacehost/internal/sandbox"
)

// The levels that are compared. The difference to the first one is the cost of a level.
const (
	levelNone       = "none"
	levelFiles      = "files"
	levelNamespaces = "namespaces"
)

// comparison is one host that serves the same Space once at each level. The levels share the host, its GPUs and the
// machine, and each measurement alternates between them call by call, so that other load on the machine slows all alike.
type comparison struct {
	*bench
	rotation
	host   *target
	log    *hostLog
	config string      // file of the host
	server *byteServer // nil if this machine has only loopback addresses
}

// compareLevels measures the rounds of --isolation.
func (b *bench) compareLevels(ctx context.Context) (err error) {
	c := &comparison{bench: b}
	if b.columns, err = b.availableLevels(); err != nil {
		return err
	}
	if c.server, err = newByteServer(); err != nil {
		b.printf("SKIPPED: %v; egress is not measured", err)
	} else {
		defer func() { err = errors.Join(err, c.server.close()) }()
	}
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	for round := 1; round <= b.options.rounds; round++ {
		for _, s := range levelSteps(b.short) {
			if !b.wants(s.step) && s.name != restartStep { // each round measures processes of its own
				continue
			}
			began := time.Now()
			all, err := s.measure(ctx, c)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, level := range b.columns {
				if v, ok := all[level]; ok {
					b.record(round, level, s.name, v, nil, began)
				}
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w\n%s", s.name, round, err, c.host.lastOutput())
			}
		}
	}
	return nil
}

// availableLevels tries the levels on this machine.
func (b *bench) availableLevels() ([]string, error) {
	levels := []string{levelNone}
	if err := sandbox.ProbeFiles().Err; err != nil {
		b.printf("SKIPPED: level files is not measured: %v; see `spacehost doctor`", err)
	} else {
		levels = append(levels, levelFiles)
	}
	probe, err := sandbox.Probe(filepath.Join(b.scratch, "probe"))
	if err != nil {
		return nil, fmt.Errorf("try levels of isolation: %w", err)
	}
	if probe.Err != nil {
		b.printf("SKIPPED: level namespaces is not measured: %v; see `spacehost doctor`", probe.Err)
		return levels, nil
	}
	return append(levels, levelNamespaces), nil
}

// start starts the host and returns once every Space has answered a call.
func (c *comparison) start(ctx context.Context) error {
	home, err := os.MkdirTemp(c.scratch, "levels-")
	if err != nil {
		return err
	}
	s := &target{name: ours, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	c.host, c.config = s, filepath.Join(home, "serve.yaml")
	if err := os.WriteFile(c.config, []byte(c.yaml()), 0o600); err != nil {
		return err
	}
	state := filepath.Join(home, "state")
	s.cmd = exec.Command(c.spacehost, "serve", "--config", c.config, "--state", state, "--ready-json")
	s.cmd.Env = plainEnv(home)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	lines := make(chan string, 1)
	if _, err := s.launch(lines); err != nil {
		return fmt.Errorf("start spacehost: %w", err)
	}
	if err := c.awaitReady(ctx, lines); err != nil {
		return fmt.Errorf("start spacehost: %w\n%s", err, s.lastOutput())
	}
	c.log = &hostLog{path: filepath.Join(state, "logs", "spacehost.log")}
	return nil
}

// yaml is the configuration of the host. JSON is YAML, and quotes every text.
func (c *comparison) yaml() string {
	var spaces []map[string]any
	for _, level := range c.columns {
		one := map[string]any{"folder": c.app, "name": level, "isolation": level, "address": "127.0.0.1:0", "python": c.env.Python}
		if level == levelNamespaces && c.server != nil {
			one["reach"] = []string{c.server.address()}
		}
		spaces = append(spaces, one)
	}
	text, _ := json.Marshal(map[string]any{ // plain values cannot fail
		"gpus": map[string]any{"machine": "mock:8xH200"}, "tiers": map[string]any{"unauthenticated": map[string]any{"unlimited": true}},
		"address": "127.0.0.1:0", "console": "127.0.0.1:0", "spaces": spaces,
	})
	return string(text)
}

// awaitReady reads the line of --ready-json and connects to each Space. A Space at another level than configured is an
// error.
func (c *comparison) awaitReady(ctx context.Context, lines <-chan string) error {
	var ready struct {
		Spaces []struct{ Name, URL, Stage, Isolation string }
	}
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &ready); err != nil || len(ready.Spaces) != len(c.columns) {
			return errors.New("the process exited, or its first line is not that of --ready-json")
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, one := range ready.Spaces {
		if one.Stage != "RUNNING" || one.Isolation != one.Name {
			return fmt.Errorf("the Space %s has the stage %s and the level %s; want RUNNING and %s", one.Name, one.Stage, one.Isolation, one.Name)
		}
		c.spaces = append(c.spaces, &servedSpace{name: one.Name, url: one.URL})
	}
	return nil
}

// connect replaces the client of a Space, and warms the Space up.
func (c *comparison) connect(ctx context.Context, s *servedSpace) (err error) {
	if s.client != nil {
		s.client.close()
	}
	if s.client, err = newClient(ctx, s.url, 1); err != nil {
		return err
	}
	for _, api := range []string{"noop", "on_gpu"} {
		for range levelSizeFor(c.short).warmUp {
			if _, _, err := s.client.call(ctx, newHash(), api, `["warm"]`, `"warm"`); err != nil {
				return fmt.Errorf("warm up %s: %w", s.name, err)
			}
		}
	}
	return nil
}

func (c *comparison) stop() {
	c.rotation.close()
	if c.host != nil {
		c.host.stop()
	}
}

// hostLog reads the log of the host.
type hostLog struct {
	path string
	read int // bytes
}

// skip ignores what the log contains so far.
func (l *hostLog) skip() {
	if info, err := os.Stat(l.path); err == nil {
		l.read = int(info.Size())
	}
}

// logEntry is a line of the host's log about a Space.
type logEntry struct {
	Msg, Space, Took string
	PID              int
}

// find returns the first line with that message about a Space since skip; false if there is none.
func (l *hostLog) find(message, space string) (entry logEntry, ok bool) {
	data, _ := os.ReadFile(l.path) // await fails when the host has exited
	for line := range strings.Lines(string(data[min(l.read, len(data)):])) {
		entry = logEntry{}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == message && entry.Space == space { // the last line may be incomplete
			return entry, true
		}
	}
	return logEntry{}, false
}

// byteServer answers each connection with as many bytes as its first line names. It listens on an address of this machine
// that a Space in a network of its own reaches through the host only.
type byteServer struct {
	listener net.Listener
	ended    chan struct{}
}

func newByteServer() (*byteServer, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.To4() == nil || !network.IP.IsGlobalUnicast() {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort(network.IP.String(), "0"))
		if err != nil {
			return nil, err
		}
		s := &byteServer{listener: l, ended: make(chan struct{})}
		go s.serve()
		return s, nil
	}
	return nil, errors.New("this machine has only loopback addresses")
}

func (s *byteServer) address() string { return s.listener.Addr().String() }

func (s *byteServer) serve() {
	defer close(s.ended)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var size int64
			if _, err := fmt.Fscanln(conn, &size); err == nil {
				_ = noiseTo(conn, size) // the Space reports how many bytes it got
			}
		}()
	}
}

func (s *byteServer) close() error {
	err := s.listener.Close()
	<-s.ended
	return err
}
