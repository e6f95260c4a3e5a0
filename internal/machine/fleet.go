package machine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"spacehost/internal/lease"
	"spacehost/internal/link"
)

// Broker is what a Fleet needs of a *lease.Broker.
type Broker interface {
	Join(lease.Machine, lease.MachineReport) error
	Suspect(name string) error
	Reachable(name string) error
	Lost(name string, lastBeat time.Time) error
	Part(ctx context.Context, name string) error
}

// State is whether the broker can use a node.
type State string

// The States.
const (
	Connected State = "connected"
	Suspect   State = "suspect" // its beats are late, or its link has just ended: no lease starts there
	Lost      State = "lost"    // no beat for link.LostAfter: nothing is known about it
)

// View is a node as it is now.
type View struct {
	Name  string
	State State
	Since time.Time // of the State
	Beat  time.Time // the last one
	Hello Hello     // of its last link, with its present Devices
}

// Fleet makes each node that connects a machine of the broker. It implements link.Handler for the front. Its methods are safe for
// concurrent use. Use NewFleet.
type Fleet struct {
	broker Broker
	log    *zap.Logger

	mu    sync.Mutex
	nodes map[string]*fleetNode
}

// The maximum of messages of one node about its Devices. A node sends a few at the begin of a link, and one for each error.
const (
	maxClaims    = 100
	maxClaimRate = 10 // a second
)

// fleetNode is a node that has connected since the host started.
type fleetNode struct {
	*peer

	claims *rate.Limiter // of messages about its Devices, and of those that are refused

	change sync.Mutex // held while the state changes, together with that of the broker
	isLeft bool       // it is forgotten
	known  bool       // it has joined the broker
	timer  *time.Timer

	viewMu sync.Mutex
	state  State
	since  time.Time
	hello  Hello
}

var _ link.Handler = (*Fleet)(nil)

// NewFleet returns a Fleet without nodes. log may be nil.
func NewFleet(broker Broker, log *zap.Logger) *Fleet {
	if log == nil {
		log = zap.NewNop()
	}
	return &Fleet{broker: broker, log: log, nodes: map[string]*fleetNode{}}
}

// Welcome answers a Hello.
type Welcome struct {
	Protocol int `json:"protocol"`
}

// ProtocolError refuses an agent with another protocol.
type ProtocolError struct{ Theirs int }

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("the agent speaks protocol %d, this front %d; install the same version of spacehost on both", e.Theirs, Protocol)
}

// Hello lets a node join the broker, with the Devices and leases of its Hello, and returns the Welcome. It is called once for each
// link, before any other method, while the broker runs. The error is a *link.RemoteError for the node; then the caller closes the
// link. It wraps a *ProtocolError, a *DevicesError, a *lease.DeviceTakenError or that of reading the Hello.
func (f *Fleet) Hello(l Link, body json.RawMessage) (json.RawMessage, error) {
	err := f.hello(l, body)
	if err == nil {
		return json.Marshal(Welcome{Protocol})
	}
	f.log.Warn("node refused", zap.String("node", l.Peer()), zap.Error(err))
	return nil, &refusal{link.RemoteError{Code: link.CodeRefused, Text: err.Error()}, err}
}

// refusal is an error with the text that the node gets.
type refusal struct {
	remote link.RemoteError
	cause  error
}

func (e *refusal) Error() string { return e.cause.Error() }

func (e *refusal) Unwrap() []error { return []error{&e.remote, e.cause} }

func (f *Fleet) hello(l Link, body json.RawMessage) error {
	hello, err := decode[Hello](body)
	if err != nil {
		return err
	}
	if hello.Protocol != Protocol {
		return &ProtocolError{hello.Protocol}
	}
	if err := hello.Devices.check(); err != nil {
		return err
	}
	if hello.Report, err = plainReport(hello.Report); err != nil {
		return err
	}
	return f.join(l, hello)
}

func (f *Fleet) join(l Link, hello Hello) error {
	n := f.locked(l.Peer())
	defer n.change.Unlock()
	if isDone(l) { // another link of the node may have come meanwhile
		return &lease.UnreachableError{Machine: l.Peer()}
	}
	if n.known && n.view().State != Lost {
		// Its last link may have ended with messages under way: the report decides about its leases.
		if old := n.current(); old != nil {
			old.Close()
		}
		f.lose(n, n.detach())
	}
	report := n.complete(hello)
	n.attach(l)
	if err := f.broker.Join(&Remote{n.peer, hello.Devices}, report); err != nil {
		n.detach()
		if !n.known {
			f.remove(n)
		}
		return err
	}
	n.known = true
	n.stopTimer()
	n.setHello(hello)
	n.set(Connected)
	go f.follow(n, l)
	return nil
}

// locked returns a node that it has locked for a change, and creates it if needed.
func (f *Fleet) locked(name string) *fleetNode {
	for {
		f.mu.Lock()
		n := f.nodes[name]
		if n == nil {
			n = &fleetNode{peer: newPeer(name), claims: rate.NewLimiter(maxClaimRate, maxClaims)}
			f.nodes[name] = n
		}
		f.mu.Unlock()
		n.change.Lock()
		if !n.isLeft {
			return n
		}
		n.change.Unlock() // it was forgotten meanwhile
	}
}

func (f *Fleet) find(name string) *fleetNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[name]
}

// remove forgets a node. Its lock is held.
func (f *Fleet) remove(n *fleetNode) {
	n.isLeft = true
	n.stopTimer()
	close(n.closed)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.nodes, n.name)
}

// follow handles the end of a link.
func (f *Fleet) follow(n *fleetNode, l Link) {
	<-l.Done()
	n.change.Lock()
	defer n.change.Unlock()
	if n.current() != l {
		return // replaced
	}
	beat := n.detach()
	if n.isLeft {
		return
	}
	f.note(n, Suspect, f.broker.Suspect(n.name))
	n.timer = time.AfterFunc(time.Until(beat.Add(link.LostAfter)), func() {
		n.change.Lock()
		defer n.change.Unlock()
		if !n.isLeft && n.current() == nil && n.view().State == Suspect {
			f.lose(n, beat)
		}
	})
}

// lose tells the broker that a node is lost.
func (f *Fleet) lose(n *fleetNode, lastBeat time.Time) {
	n.stopTimer()
	f.note(n, Lost, f.broker.Lost(n.name, lastBeat))
}

// note records a state. The broker refuses it only if it has stopped.
func (f *Fleet) note(n *fleetNode, s State, err error) {
	n.set(s)
	if err != nil {
		f.log.Debug("broker does not follow", zap.String("node", n.name), zap.String("state", string(s)), zap.Error(err))
	}
}

// Forget removes a node from the broker: its link is closed, no lease starts there, and those under way finish or are settled. It
// returns when the broker has removed it, or when ctx ends. A node that has not connected since the host started is no error.
func (f *Fleet) Forget(ctx context.Context, name string) error {
	n := f.find(name)
	if n == nil {
		return f.part(ctx, name)
	}
	n.change.Lock()
	defer n.change.Unlock()
	if n.isLeft {
		return nil
	}
	if l := n.current(); l != nil {
		l.Close()
	}
	beat := n.detach()
	if n.known && n.view().State != Lost {
		f.lose(n, beat)
	}
	f.remove(n)
	return f.part(ctx, name)
}

func (f *Fleet) part(ctx context.Context, name string) error {
	err := f.broker.Part(ctx, name)
	if errors.As(err, new(*lease.UnknownMachineError)) {
		return nil
	}
	return err
}

// Nodes lists the nodes that have connected since the host started, by name.
func (f *Fleet) Nodes() (all []View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.nodes {
		if v := n.view(); v.State != "" {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b View) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (n *fleetNode) view() View {
	n.viewMu.Lock()
	defer n.viewMu.Unlock()
	return View{Name: n.name, State: n.state, Since: n.since, Beat: n.lastBeat(), Hello: n.hello}
}

func (n *fleetNode) set(s State) {
	n.viewMu.Lock()
	defer n.viewMu.Unlock()
	if n.state != s {
		n.state, n.since = s, time.Now()
	}
}

func (n *fleetNode) setHello(h Hello) {
	n.viewMu.Lock()
	defer n.viewMu.Unlock()
	h.Report = lease.MachineReport{}
	n.hello = h
}

func (n *fleetNode) stopTimer() {
	if n.timer != nil {
		n.timer.Stop()
	}
}

// reasonAgentRestarted is the reason of a lease of which an agent has no record, because it has started anew.
const reasonAgentRestarted = "agent restarted"

// complete returns the report of a node, with the leases that its agent had before it started anew.
func (p *peer) complete(h Hello) lease.MachineReport {
	report := h.Report
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != "" && p.run != h.Run {
		for id := range p.armed {
			if !has(report, id) {
				report.Ended = append(slices.Clone(report.Ended), lease.EndedLease{Lease: id, State: lease.Revoked, Reason: reasonAgentRestarted, Used: -1})
			}
		}
	}
	p.run = h.Run
	return report
}

func has(r lease.MachineReport, id string) bool {
	return slices.ContainsFunc(r.Open, func(o lease.OpenLease) bool { return o.Lease == id }) ||
		slices.ContainsFunc(r.Ended, func(e lease.EndedLease) bool { return e.Lease == id })
}

// Call implements link.Handler. Nodes call nothing.
func (f *Fleet) Call(_ context.Context, _ *link.Link, op string, _ json.RawMessage) (any, error) {
	return nil, unknownOpError(op)
}

// Tell implements link.Handler.
func (f *Fleet) Tell(l *link.Link, op string, body json.RawMessage) { f.receive(l, op, body) }

// receive handles a message of a node. What a node claims is a claim about its own Devices and processes.
func (f *Fleet) receive(l Link, op string, body json.RawMessage) {
	n := f.find(l.Peer())
	if n == nil || n.current() != l {
		return // of a former link
	}
	var err error
	switch op {
	case opExit:
		var e exit
		if e, err = decode[exit](body); err == nil {
			n.onExit(e)
		}
	case opXid:
		var x xid
		if x, err = decode[xid](body); err == nil && x.Xid > 0 && x.Xid <= maxXid && n.view().Hello.has(x.Device) {
			n.onXid(x)
		}
	case opDevices:
		var d Devices
		if d, err = decode[Devices](body); err == nil {
			err = d.check()
		}
		if err == nil {
			err = f.renew(n, l, d)
		}
	default:
		err = unknownOpError(op)
	}
	if err != nil {
		f.log.Warn("message of a node failed", zap.String("node", n.name), zap.String("op", op), zap.Error(err))
	}
	if (err != nil || op != opExit) && !n.claims.Allow() { // each costs the broker or the log more than the node
		f.log.Warn("link of a node closed", zap.String("node", n.name), zap.String("why", "too many messages about its Devices"))
		l.Close()
	}
}

// renew lets a node join again with other Devices.
func (f *Fleet) renew(n *fleetNode, l Link, d Devices) error {
	n.change.Lock()
	defer n.change.Unlock()
	hello := n.view().Hello
	if n.isLeft || n.current() != l || isEqual(hello.Devices, d) {
		return nil
	}
	if err := f.broker.Join(&Remote{n.peer, d}, lease.MachineReport{}); err != nil {
		return err
	}
	if n.view().State == Suspect { // a machine that joins can be reached
		f.note(n, Suspect, f.broker.Suspect(n.name))
	}
	hello.Devices = d
	n.setHello(hello)
	return nil
}

func isEqual(a, b Devices) bool {
	return a.LendsNodes == b.LendsNodes && slices.Equal(a.Slots, b.Slots)
}

// Stream implements link.Handler. No stream concerns Devices.
func (f *Fleet) Stream(_ *link.Link, _ json.RawMessage, conn net.Conn) { conn.Close() }

// Suspect implements link.Handler.
func (f *Fleet) Suspect(l *link.Link, suspect bool) { f.suspect(l, suspect) }

func (f *Fleet) suspect(l Link, suspect bool) {
	n := f.find(l.Peer())
	if n == nil {
		return
	}
	n.change.Lock()
	defer n.change.Unlock()
	if n.isLeft || n.current() != l {
		return
	}
	n.setLate(suspect)
	if suspect {
		f.note(n, Suspect, f.broker.Suspect(n.name))
	} else {
		f.note(n, Connected, f.broker.Reachable(n.name))
	}
}

func (p *peer) setLate(late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = late
}
