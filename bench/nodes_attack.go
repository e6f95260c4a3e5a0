package main

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"spacehost/gpu"
	"spacehost/internal/link"
	machines "spacehost/internal/machine"
	"spacehost/internal/nodeagent"
	"spacehost/internal/nodes"
)

const (
	// evilName is the compromised node. It has joined like the others.
	evilName = "node-evil"
	// strangers is the number of connections of a client without a certificate.
	strangers = 1000
)

// attack is what a compromised node and a client without a certificate do to a front until it ends.
type attack struct {
	front   string
	stop    context.CancelFunc
	running sync.WaitGroup

	messages    atomic.Int64 // that the node has sent
	links       atomic.Int64 // of the node that the front has closed
	connections atomic.Int64 // of the client that the front has closed
}

func startAttack(ctx context.Context, front, agents string) (*attack, error) {
	id, err := link.LoadIdentity(filepath.Join(agents, evilName, nodeagent.Folder))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	a := &attack{front: front, stop: stop}
	a.running.Go(func() { a.flood(ctx, id) })
	for range strangers {
		a.running.Go(func() { a.keepSilent(ctx) })
	}
	return a, nil
}

func (a *attack) end() {
	a.stop()
	a.running.Wait()
}

// addresses of the attackers. Those of the nodes are in 127.1.0.0/16.
var (
	evilAddress     = net.IPv4(127, 2, 0, 1)
	strangerAddress = net.IPv4(127, 2, 0, 2)
)

func dialFrom(ip net.IP) func(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}).DialContext
}

// flood sends messages until the front closes the link, and connects again.
func (a *attack) flood(ctx context.Context, id link.Identity) {
	device := gpu.Device{UUID: "GPU-evil", Name: "NVIDIA L4", MemoryTotal: 24 << 30}
	machine, err := json.Marshal(machines.Hello{Protocol: machines.Protocol, Devices: machines.Devices{Slots: []gpu.Slot{{Device: device}}}})
	if err != nil {
		panic(err) // it is the same in each run
	}
	d := link.Dialer{Address: a.front, Identity: id, Handler: silentHandler{}, DialContext: dialFrom(evilAddress)}
	for ctx.Err() == nil {
		l, _, err := d.Dial(ctx, nodes.Hello{Version: "bench", Machine: machine})
		if err != nil {
			pauseFor(ctx, 100*time.Millisecond)
			continue
		}
		for i := 0; ctx.Err() == nil && l.Tell("dance", i) == nil; i++ {
			a.messages.Add(1)
		}
		if ctx.Err() == nil {
			a.links.Add(1)
		}
		l.Close()
		l.Wait()
	}
}

// keepSilent opens a connection without a handshake, and opens the next one when the front has closed it.
func (a *attack) keepSilent(ctx context.Context) {
	dial := dialFrom(strangerAddress)
	for ctx.Err() == nil {
		conn, err := dial(ctx, "tcp", a.front)
		if err != nil {
			pauseFor(ctx, time.Second)
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = conn.Read(make([]byte, 1)) // until the front closes it
		if stop() {
			a.connections.Add(1)
			conn.Close()
		}
		pauseFor(ctx, time.Second)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// silentHandler is the end of a link that answers nothing.
type silentHandler struct{}

func (silentHandler) Call(context.Context, *link.Link, string, json.RawMessage) (any, error) {
	return nil, nil
}
func (silentHandler) Tell(*link.Link, string, json.RawMessage)              {}
func (silentHandler) Stream(_ *link.Link, _ json.RawMessage, conn net.Conn) { conn.Close() }
func (silentHandler) Suspect(*link.Link, bool)                              {}

// attackNodes measures the load again while the front is attacked.
func attackNodes(ctx context.Context, n *nodeBench) (values, error) {
	if !n.wants(step{name: "load"}) {
		if err := n.beginLoad(ctx); err != nil {
			return nil, err
		}
	}
	a, err := startAttack(ctx, n.cluster, n.agents())
	if err != nil {
		return nil, err
	}
	defer a.end()
	if _, err := n.send("mark"); err != nil {
		return nil, err
	}
	v, r, err := n.underLoad(ctx)
	if err != nil {
		return nil, err
	}
	v["grant_p50_ms"], v["grant_p99_ms"] = r.P50["grant"], r.P99["grant"]
	v["links"], v["connections"] = float64(a.links.Load()), float64(a.connections.Load())
	v["messages_s"] = float64(a.messages.Load()) / r.Seconds
	return v, r.wrong(0)
}
