package machine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/guard"
	"spacehost/internal/lease"
	"spacehost/internal/link"
)

// Link is what this package needs of a *link.Link.
type Link interface {
	Peer() string
	Begin(op string, in any) (wait func(ctx context.Context, out any) error)
	Tell(op string, body any) error
	Beat() time.Time
	Done() <-chan struct{}
	Close()
}

// NodeConfig is what an agent knows about its machine. Open fills it.
type NodeConfig struct {
	// Local are the Devices and processes of the machine. Its Guard is replaced by that of the Node.
	Local  lease.Local
	Logger *zap.Logger // nil: no log
}

// Node lets a front use the Devices and processes of this machine. It implements link.Handler. Its methods are safe for concurrent
// use.
type Node struct {
	config NodeConfig
	log    *zap.Logger
	run    string
	memory uint64
	guard  *guard.Guard

	mu      sync.Mutex
	local   *lease.Local // replaced by Renew
	renewed chan struct{}
	front   Link // nil: no front is connected
	// unsent are the last errors of Devices that no front has received.
	unsent     []xid
	overstayed map[lease.Worker]bool // the guard has ended them
}

var _ link.Handler = (*Node)(nil)

// NewNode returns a Node without a front.
func NewNode(config NodeConfig) (*Node, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, fmt.Errorf("read memory of this machine: %w", err)
	}
	n := &Node{config: config, log: config.Logger, run: rand.Text(), memory: info.Totalram * uint64(info.Unit), renewed: make(chan struct{}), overstayed: map[lease.Worker]bool{}}
	n.guard = &guard.Guard{Processes: guardedProcesses{n}, Strict: true, Logger: config.Logger}
	n.setLocal(config.Local)
	return n, nil
}

func (n *Node) setLocal(local lease.Local) {
	local.Guard = n.guard
	n.local = &local
}

// guardedProcesses marks the workers that the guard ends.
type guardedProcesses struct{ node *Node }

func (g guardedProcesses) Wait(ctx context.Context, pid int, start uint64) {
	g.node.machine().Processes.Wait(ctx, pid, start)
}

func (g guardedProcesses) End(pid int, start uint64, grace time.Duration) bool {
	g.node.mu.Lock()
	g.node.overstayed[lease.Worker{PID: pid, Start: start}] = true
	g.node.mu.Unlock()
	return g.node.machine().Processes.End(pid, start, grace)
}

func (n *Node) machine() *lease.Local {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.local
}

// Hello returns the Hello of the Devices and leases as they are now. It does not block.
func (n *Node) Hello(context.Context) (json.RawMessage, error) {
	local := n.machine()
	return json.Marshal(Hello{
		Protocol: Protocol, Run: n.run, CPUs: runtime.NumCPU(), Memory: n.memory, Devices: devicesOf(local), Report: n.guard.Report(),
	})
}

// Leases returns the number of leases whose workers the guard watches.
func (n *Node) Leases() int { return len(n.guard.Report().Open) }

func devicesOf(local *lease.Local) Devices {
	return Devices{Slots: local.Slots(), LendsNodes: local.LendsNodes()}
}

// Renew replaces the Pool by one that its Renew has returned, and reports the Devices to the front.
func (n *Node) Renew(pool *gpu.Pool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	local := *n.local
	local.Pool = pool
	n.setLocal(local)
	close(n.renewed)
	n.renewed = make(chan struct{})
	if n.front != nil {
		n.tell(n.front, opDevices, devicesOf(n.local))
	}
}

// tell sends a message. Without a front, the next hello has what matters.
func (n *Node) tell(front Link, op string, body any) {
	if err := front.Tell(op, body); err != nil {
		n.log.Debug("message not sent", zap.String("op", op), zap.Error(err))
	}
}

const (
	// watchRetryDelay is the pause after the driver's event stream has failed.
	watchRetryDelay = 30 * time.Second
	// maxUnsent is the number of errors of Devices that are kept for the next front.
	maxUnsent = 64
)

// Run watches the errors of the Devices until ctx ends. Then it leaves the workers.
func (n *Node) Run(ctx context.Context) error {
	defer n.guard.Close()
	for ctx.Err() == nil {
		n.watchDevices(ctx)
	}
	return context.Cause(ctx)
}

// watchDevices watches the present Devices until they are renewed, or the watch is to be begun again.
func (n *Node) watchDevices(ctx context.Context) {
	n.mu.Lock()
	local, renewed := n.local, n.renewed
	n.mu.Unlock()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		select {
		case <-renewed:
			stop()
		case <-ctx.Done():
		}
	})
	defer stop() // before the wait
	err := local.Watch(ctx, func(device gpu.DeviceUUID, x gpu.Xid) { n.report(xid{device, x}) })
	if ctx.Err() != nil {
		return
	}
	var again <-chan time.Time
	if unsupported := (*gpu.NotSupportedError)(nil); err != nil && !errors.As(err, &unsupported) {
		n.log.Warn("driver error watch stopped", zap.Error(err))
		again = time.After(watchRetryDelay)
	}
	select {
	case <-ctx.Done():
	case <-again:
	}
}

// report sends an error of a Device to the front, or keeps it for the next one.
func (n *Node) report(x xid) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.front != nil && n.front.Tell(opXid, x) == nil {
		return
	}
	if n.unsent = append(n.unsent, x); len(n.unsent) > maxUnsent {
		n.unsent = n.unsent[1:]
	}
}

// Connected begins to use a link that the front has accepted.
func (n *Node) Connected(l *link.Link, _ json.RawMessage) { n.setFront(l) }

func (n *Node) setFront(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.front = l
	for _, x := range n.unsent {
		n.tell(l, opXid, x)
	}
	n.unsent = nil
	n.tell(l, opDevices, devicesOf(n.local)) // they may have changed since the hello
	go func() {
		<-l.Done()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.front == l {
			n.front = nil
		}
	}()
}

// calls are the calls of the front.
var calls = map[string]func(ctx context.Context, m *lease.Local, body json.RawMessage) (any, error){
	opClear: answerCall(func(ctx context.Context, m *lease.Local, q clearRequest) (any, error) {
		return nil, m.Clear(ctx, q.Device, q.Self, q.Beside)
	}),
	opClaim: answerCall(func(ctx context.Context, m *lease.Local, q claimRequest) (lease.Worker, error) {
		return m.Claim(ctx, q.Instance, q.PID)
	}),
	opFreeze: answerCall(func(ctx context.Context, m *lease.Local, w lease.Worker) (bool, error) { return m.Freeze(ctx, w), nil }),
	opResume: answerCall(func(ctx context.Context, m *lease.Local, q resumeRequest) (any, error) {
		return nil, m.ResumeAndWait(ctx, lease.Resumption{Lease: q.Lease, Worker: q.Worker, Device: q.Device, Beside: q.Beside, Left: q.Left})
	}),
	opArm: answerCall(func(_ context.Context, m *lease.Local, q armRequest) (any, error) {
		m.Arm(q.Lease, q.Worker, q.Left)
		return nil, nil
	}),
	opEnd: answerCall(func(ctx context.Context, m *lease.Local, q endRequest) (any, error) {
		return nil, m.End(ctx, q.Worker, q.Grace)
	}),
	opShow: answerCall(func(ctx context.Context, m *lease.Local, q showRequest) (any, error) {
		if !m.LendsNodes() {
			return nil, nil
		}
		return nil, m.Show(ctx, q.Space, q.Devices)
	}),
	opHolders: answerCall(func(ctx context.Context, m *lease.Local, _ struct{}) (map[gpu.DeviceUUID][]int, error) {
		return m.Holders(ctx), nil
	}),
	opOutsiders: answerCall(func(ctx context.Context, m *lease.Local, q outsidersRequest) ([]lease.Outsider, error) {
		return m.Outsiders(ctx, q.Uses, q.Workers), nil
	}),
	opDescribe: answerCall(func(ctx context.Context, m *lease.Local, pid int) (lease.ProcessInfo, error) {
		return m.Describe(ctx, pid), nil
	}),
	opStatus: answerCall(func(ctx context.Context, m *lease.Local, _ struct{}) ([]statusRow, error) {
		return encodeStatus(m.Status(ctx)), nil
	}),
}

func answerCall[In, Out any](do func(context.Context, *lease.Local, In) (Out, error)) func(context.Context, *lease.Local, json.RawMessage) (any, error) {
	return func(ctx context.Context, m *lease.Local, body json.RawMessage) (any, error) {
		in, err := decode[In](body)
		if err != nil {
			return nil, err
		}
		out, err := do(ctx, m, in)
		if err != nil {
			return nil, encodeError(err)
		}
		return out, nil
	}
}

func decode[T any](body json.RawMessage) (value T, err error) {
	if err = json.Unmarshal(body, &value); err != nil {
		err = fmt.Errorf("message of the other end: %w", err)
	}
	return value, err
}

// unknownOpError is the answer to a call that this version does not have.
func unknownOpError(op string) error {
	return &link.RemoteError{Code: link.CodeProtocol, Text: fmt.Sprintf("unknown operation %.40q; use the same version of spacehost on the front and the node", op)}
}

// Call implements link.Handler.
func (n *Node) Call(ctx context.Context, _ *link.Link, op string, body json.RawMessage) (any, error) {
	return n.call(ctx, op, body)
}

func (n *Node) call(ctx context.Context, op string, body json.RawMessage) (any, error) {
	answer := calls[op]
	if answer == nil {
		return nil, unknownOpError(op)
	}
	return answer(ctx, n.machine(), body)
}

// Tell implements link.Handler.
func (n *Node) Tell(l *link.Link, op string, body json.RawMessage) { n.receive(l, op, body) }

// receive handles a message of the front. Nothing here blocks.
func (n *Node) receive(l Link, op string, body json.RawMessage) {
	m := n.machine()
	var err error
	switch op {
	case opConfine:
		var q confineRequest
		if q, err = decode[confineRequest](body); err == nil {
			m.Confine(q.Instance, q.Worker)
		}
	case opOccupy:
		var q occupyRequest
		if q, err = decode[occupyRequest](body); err == nil {
			err = m.Occupy(q.Device, q.Worker)
		}
	case opArm:
		var q armRequest
		if q, err = decode[armRequest](body); err == nil {
			m.Arm(q.Lease, q.Worker, q.Left)
		}
	case opDisarm:
		var id string
		if id, err = decode[string](body); err == nil {
			m.Disarm(id)
		}
	case opWatch:
		var w lease.Worker
		if w, err = decode[lease.Worker](body); err == nil {
			go n.watch(l, m, w)
		}
	default:
		err = unknownOpError(op)
	}
	if err != nil {
		n.log.Warn("message of the front failed", zap.String("op", op), zap.Error(err))
	}
}

// watch reports the exit of a worker on the link on which the front has asked for it.
func (n *Node) watch(l Link, m *lease.Local, w lease.Worker) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		select {
		case <-l.Done():
			stop()
		case <-ctx.Done():
		}
	}()
	m.Wait(ctx, w)
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tell(l, opExit, exit{w, n.overstayed[w]})
	delete(n.overstayed, w)
}

// Stream implements link.Handler. No stream concerns Devices.
func (n *Node) Stream(_ *link.Link, _ json.RawMessage, conn net.Conn) { conn.Close() }

// Suspect implements link.Handler. The guard does not depend on the front.
func (n *Node) Suspect(*link.Link, bool) {}
