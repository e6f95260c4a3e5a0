package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/agent"
	"spacehost/internal/bundle"
	"spacehost/internal/deviceapi"
	"spacehost/internal/link"
	"spacehost/internal/sandbox"
	"spacehost/internal/shelf"
	"spacehost/server"
	"spacehost/worker"
)

// nodePlace is the Place of a Space on a node (node is the other side). Its methods may be called concurrently.
type nodePlace struct {
	s *spaceRun

	mu       sync.Mutex
	node     string                   // that has prepared the Space
	over     *link.Link               // over which it did so
	ofHost   map[string]string        // variables of the last preparation
	bundle   string                   // digest of the folder there
	prepared Prepared                 // the answer of the node
	networks map[string]*frontNetwork // by start
	opened   chan struct{}            // closed when a network opens; nil: nothing waits
	files    *shelf.Remote
}

var _ worker.Place = (*nodePlace)(nil)

// insideDevicePort is the port of the device API in a sandbox on a node. Every front has the same one, so that a later front serves it, too.
const insideDevicePort = 1

// launchTime bounds the start of a process on a node, without what it loads.
const launchTime = time.Minute

// link returns the link to the node that has prepared the Space.
func (p *nodePlace) link() (*link.Link, error) {
	p.mu.Lock()
	node := p.node
	p.mu.Unlock()
	return p.s.host.linkTo(node)
}

// linkTo returns the link to a node. Its error is worker.ErrUnreachable, which visitors may read: it does not name the node.
func (h *Host) linkTo(node string) (*link.Link, error) {
	if h.cluster != nil && node != "" {
		if l := h.cluster.server.Link(node); l != nil {
			return l, nil
		}
	}
	return nil, worker.ErrUnreachable
}

// prepare brings the folder of the Space to a node, and lets the node build its environment. ofHost are the variables that do not
// depend on the machine.
func (p *nodePlace) prepare(ctx context.Context, node string, ofHost map[string]string) error {
	s := p.s
	l, err := s.host.linkTo(node)
	if err != nil {
		return err
	}
	p.mu.Lock()
	before := p.node
	p.node = node
	endFiles := func() {}
	if before != node {
		endFiles = p.leaveFiles()
	}
	p.mu.Unlock()
	endFiles()
	if before != "" && before != node {
		s.host.forgetOnNode(before, s.space().Name)
	}
	digest, err := p.send(ctx, l)
	if err != nil {
		return fmt.Errorf("copy the Space to its machine: %w", err)
	}
	p.mu.Lock()
	p.bundle = digest
	p.mu.Unlock()
	s.note(fmt.Sprintf("runs on %s, which prepares its environment.", node))
	var prepared Prepared
	order := SpaceOrder{Settings: *s.settings(), Name: s.space().Name, Bundle: digest, Variables: ofHost}
	order.Settings.Secrets, order.Settings.Members = nil, nil // Secrets go into the memory of the process alone
	if err := l.Call(ctx, opPrepare, order, &prepared); err != nil {
		return fmt.Errorf("prepare the Space on its machine: %w", fromRemoteBuildError(err))
	}
	p.mu.Lock()
	p.over, p.ofHost = l, ofHost
	p.prepared = prepared
	p.mu.Unlock()
	for _, warning := range prepared.Warnings {
		s.note("warning: " + warning)
	}
	s.note(fmt.Sprintf("environment on %s: Python %s, gradio %s, spaces %s", node, prepared.PythonVersion, prepared.Gradio, prepared.Spaces))
	return nil
}

// versions returns the versions of gradio and spaces in the environment on the node.
func (p *nodePlace) versions() (gradio, spaces string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.prepared.Gradio, p.prepared.Spaces
}

// send sends the folder of the Space, as far as the node does not have it.
func (p *nodePlace) send(ctx context.Context, l *link.Link) (digest string, err error) {
	s := p.s
	path := s.host.state.path("bundles", s.space().Name+".cache")
	cache := bundle.LoadCache(path)
	m, err := bundle.Scan(ctx, s.space().Dir, cache)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), cache.Save(path)); err != nil {
		s.logError("hashes of the folder not kept", err)
	}
	for _, note := range m.Notes {
		s.note("warning: " + note)
	}
	conn, err := l.Open(ctx, BundleStream{streamBundle, s.space().Name, m.Digest().String()})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return m.Digest().String(), bundle.Send(ctx, conn, m, s.space().Dir, nil)
}

// remote returns the processes of the node. A node that has connected again prepares the Space again: its agent may be another one.
func (p *nodePlace) remote(ctx context.Context) (*agent.Remote, error) {
	l, err := p.link()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	node, over, ofHost := p.node, p.over, p.ofHost
	p.mu.Unlock()
	if over != l {
		if err := p.prepare(ctx, node, ofHost); err != nil {
			return nil, err
		}
	}
	return &agent.Remote{Link: l, Logger: p.s.workerLog()}, nil
}

// Start implements worker.Place.
func (p *nodePlace) Start(ctx context.Context, spec worker.Spec, to worker.Reporter) (worker.Start, error) {
	remote, err := p.remote(ctx)
	if err != nil {
		return nil, err
	}
	s := p.s
	order := p.order(spec)
	order.Door = s.host.device.Open(p.door(spec.Instance))
	network := p.openNetwork(spec.Instance, order.Sockets)
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	running, facts, err := remote.Launch(ctx, spec.Instance, order, p.processConfig(spec.Instance, to))
	if err != nil {
		s.host.device.Close(spec.Instance)
		p.closeNetwork(spec.Instance, network)
		return nil, err
	}
	return &nodeStart{running, p, facts, network}, nil
}

// order describes a start, without its door.
func (p *nodePlace) order(spec worker.Spec) LaunchOrder {
	s := p.s
	order := LaunchOrder{Op: streamLaunch, Space: spec.Space, Spec: spec, Device: insideDevicePort, Hosts: s.hostsFile(spec.Instance), Likeness: p.likeness(spec)}
	for _, one := range p.sockets(spec.Instance) {
		order.Sockets = append(order.Sockets, one.Socket)
	}
	return order
}

func (p *nodePlace) sockets(instance string) []siteSocket {
	return p.s.siteSockets(worker.StartInfo{Instance: instance, Device: insideDevicePort})
}

func (p *nodePlace) door(instance string) deviceapi.Door {
	p.mu.Lock()
	defer p.mu.Unlock()
	return deviceapi.Door{Space: p.s, Instance: instance, Machine: p.node, Inside: true}
}

// likeness identifies what a start depends on, without its instance.
func (p *nodePlace) likeness(spec worker.Spec) string {
	spec.Instance = ""
	p.mu.Lock()
	digest := p.bundle
	p.mu.Unlock()
	data, err := json.Marshal(struct {
		Spec             worker.Spec
		Bundle, Settings string
	}{spec, digest, p.s.settings().StartText()})
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (p *nodePlace) processConfig(instance string, to worker.Reporter) worker.ProcessConfig {
	return worker.ProcessConfig{Reporter: to, CloseDoor: func() { p.s.host.device.Close(instance) }, Logger: p.s.workerLog()}
}

// Adopt implements worker.Place.
func (p *nodePlace) Adopt(ctx context.Context, spec worker.Spec, to worker.Reporter) (worker.Start, []string) {
	remote, err := p.remote(ctx)
	if err != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	all, err := remote.Kept(ctx, spec.Space)
	if err != nil {
		p.s.logError("starts on the node not listed", err)
		return nil, nil
	}
	likeness := p.likeness(spec)
	var adopted worker.Start
	var ended []string
	for _, kept := range all {
		if adopted == nil && kept.Likeness == likeness {
			if adopted = p.take(ctx, remote, kept, to); adopted != nil {
				continue
			}
		}
		p.s.host.log.Info("start on the node is not taken over", zap.String("space", spec.Space), zap.String("instance", kept.Facts.Instance), zap.Bool("same", kept.Likeness == likeness))
		if err := remote.End(ctx, kept.Facts.Instance); err != nil {
			p.s.logError("start on the node not ended", err)
		}
		ended = append(ended, kept.Facts.Instance)
	}
	return adopted, ended
}

func (p *nodePlace) take(ctx context.Context, remote *agent.Remote, kept worker.Kept, to worker.Reporter) worker.Start {
	instance := kept.Facts.Instance
	p.s.host.device.OpenAt(kept.Door, p.door(instance))
	network := p.openNetwork(instance, kept.Sockets)
	running, facts, err := remote.Take(ctx, instance, p.processConfig(instance, to))
	if err != nil {
		p.s.logError("start on the node not taken over", err)
		p.s.host.device.Close(instance)
		p.closeNetwork(instance, network)
		return nil
	}
	return &nodeStart{running, p, facts, network}
}

// nodeStart is one start on a node.
type nodeStart struct {
	worker.Running
	place   *nodePlace
	facts   worker.Facts
	network *frontNetwork
}

// Facts implements worker.Start.
func (n *nodeStart) Facts() worker.Facts { return n.facts }

// Close implements worker.Start.
func (n *nodeStart) Close() { n.place.closeNetwork(n.facts.Instance, n.network) }

// Leave implements worker.Start.
func (n *nodeStart) Leave() {
	n.Running.Leave()
	n.place.s.host.device.Close(n.facts.Instance) // the next start opens it again
	n.Close()
}

// frontNetwork is the front's side of the network of one start on a node.
type frontNetwork struct {
	listeners   map[sandbox.Socket]*streamListener
	attachments []*server.Attachment
}

// openNetwork serves the sockets of a sandbox on a node. At the address of a Space that is not configured any more, no Space is
// found.
func (p *nodePlace) openNetwork(instance string, sockets []sandbox.Socket) *frontNetwork {
	s := p.s
	n := &frontNetwork{listeners: map[sandbox.Socket]*streamListener{}}
	present := map[sandbox.Socket]siteSocket{}
	for _, one := range p.sockets(instance) {
		present[one.Socket] = one
	}
	for _, socket := range sockets {
		l := newStreamListener()
		site := present[socket].site
		switch {
		case socket.Name == deviceSocket: // the port is that of the front that has started the process
			site = s.deviceSite(instance)
		case site == nil:
			site = s.host.server.NewShared(server.Routes{})
		}
		n.listeners[socket] = l
		n.attachments = append(n.attachments, s.host.server.Attach(site, s.space().Name, l))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.networks == nil {
		p.networks = map[string]*frontNetwork{}
	}
	p.networks[instance] = n
	if p.opened != nil {
		close(p.opened)
		p.opened = nil
	}
	return n
}

func (p *nodePlace) closeNetwork(instance string, n *frontNetwork) {
	p.mu.Lock()
	if p.networks[instance] == n {
		delete(p.networks, instance)
	}
	p.mu.Unlock()
	p.s.host.server.Detach(n.attachments...)
}

// takeOverTime is how long a connection of a sandbox waits for a front that is about to take over its start. A client of the device API
// sends each request once.
const takeOverTime = 5 * time.Second

// awaitListener returns the listener of a connection, or nil.
func (p *nodePlace) awaitListener(node string, from InsideStream) *streamListener {
	late := time.NewTimer(takeOverTime)
	defer late.Stop()
	for {
		p.mu.Lock()
		if p.opened == nil {
			p.opened = make(chan struct{})
		}
		n, opened, isHere := p.networks[from.Instance], p.opened, p.node == node
		p.mu.Unlock()
		switch {
		case !isHere:
			return nil
		case n != nil:
			return n.listeners[from.Socket]
		}
		select {
		case <-opened:
		case <-late.C:
			return nil
		}
	}
}

// deliver gives a connection of a sandbox to the site of its socket, and returns when it is closed.
func (p *nodePlace) deliver(node string, from InsideStream, conn net.Conn) {
	l := p.awaitListener(node, from)
	watched := &watchedConn{Conn: conn, closed: make(chan struct{})}
	if l == nil || !l.deliver(watched) {
		conn.Close()
		return
	}
	<-watched.closed
}

// watchedConn is a connection whose end can be awaited.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// streamListener is a net.Listener of connections that arrive over links.
type streamListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newStreamListener() *streamListener {
	return &streamListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *streamListener) deliver(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements net.Listener.
func (l *streamListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *streamListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *streamListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// forget lets the node that has prepared the Space forget it. The Space does not run there any more.
func (p *nodePlace) forget() {
	p.mu.Lock()
	node := p.node
	p.node = ""
	endFiles := p.leaveFiles()
	p.mu.Unlock()
	endFiles()
	if node != "" {
		p.s.host.forgetOnNode(node, p.s.space().Name)
	}
}

// forgetOnNode lets a node end a Space and forget it, if the node is connected.
func (h *Host) forgetOnNode(node, space string) {
	l, err := h.linkTo(node)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), launchTime)
	defer cancel()
	if err := l.Call(ctx, opForget, space, nil); err != nil {
		h.log.Warn("space not forgotten by node", zap.String("space", space), zap.String("node", node), zap.Error(err))
	}
}

// nodeStream serves a stream of a node. false: it does not concern Spaces.
func (h *Host) nodeStream(node string, hello json.RawMessage, conn net.Conn) bool {
	var from InsideStream
	if err := json.Unmarshal(hello, &from); err != nil || from.Op != streamInside {
		return false
	}
	if s := h.find(from.Space); s != nil {
		s.onNodes.deliver(node, from, conn)
	} else {
		conn.Close()
	}
	return true
}
