package machine

import (
	"context"
	"sync"
	"time"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/printable"
)

const (
	// callTimeout bounds the calls that inspect the Devices. The driver has less time (gpu/nvml).
	callTimeout = 6 * time.Second
	// statusAge is the age up to which readings of a node replace those that it does not send in time.
	statusAge = 10 * time.Second
	// deadlineDelay is the time that the broker gets to end a Lease at its deadline, before it hears that the guard of the node has ended
	// the worker. Both act at the same time.
	deadlineDelay = time.Second
)

// Remote is a node as the broker uses it: the Devices that it had when it joined, and the link that it has now. It implements
// lease.Machine. Remotes of one node share the link.
type Remote struct {
	*peer
	devices Devices
}

var _ lease.Machine = (*Remote)(nil)

// peer is the link to a node, and what outlasts one.
type peer struct {
	name   string
	closed chan struct{} // the node is forgotten

	mu      sync.Mutex
	link    Link // nil: it is down
	late    bool // its beats are late
	run     string
	armed   map[string]lease.Worker // by lease
	exits   map[lease.Worker]*watchedExit
	reports chan xid           // of the present Watch; nil: none
	xids    []xid              // that no Watch has received
	rows    []gpu.DeviceStatus // the last readings
	rowsAt  time.Time
	lastSee time.Time // of the last beat of a link that is down
}

// watchedExit is the exit of a worker that Wait awaits.
type watchedExit struct {
	exited  chan struct{}
	waiting int
	isOver  bool
}

func newPeer(name string) *peer {
	return &peer{name: name, closed: make(chan struct{}), armed: map[string]lease.Worker{}, exits: map[lease.Worker]*watchedExit{}}
}

// attach begins to use a link.
func (p *peer) attach(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link, p.late = l, false
	for w := range p.exits {
		_ = l.Tell(opWatch, w) // the fleet handles a link that is down
	}
}

// detach ends the use of a link, and returns the time of its last beat.
func (p *peer) detach() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		p.lastSee = p.link.Beat()
		p.link = nil
	}
	return p.lastSee
}

// current returns the link; nil: it is down.
func (p *peer) current() Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link
}

// lastBeat returns the time of the last beat.
func (p *peer) lastBeat() time.Time {
	if l := p.current(); l != nil {
		return l.Beat()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastSee
}

// call makes one round trip.
func (p *peer) call(ctx context.Context, op string, in, out any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.begin(op, in)(ctx, out)
}

// begin sends the request of a call. The caller must call wait.
func (p *peer) begin(op string, in any) (wait func(ctx context.Context, out any) error) {
	l := p.current()
	if l == nil {
		return func(context.Context, any) error { return &lease.UnreachableError{Machine: p.name} }
	}
	answer := l.Begin(op, in)
	return func(ctx context.Context, out any) error {
		err := answer(ctx, out)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isDone(l):
			return &lease.UnreachableError{Machine: p.name}
		}
		return decodeError(err)
	}
}

func isDone(l Link) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

// tell sends a message. It does not block.
func (p *peer) tell(op string, body any) error {
	l := p.current()
	if l == nil || l.Tell(op, body) != nil {
		return &lease.UnreachableError{Machine: p.name}
	}
	return nil
}

// ask is call for an inspection. Its result is not known if the node does not answer in time.
func ask[T any](ctx context.Context, p *peer, op string, in any) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = p.call(ctx, op, in, &out)
	return out, err
}

// Name implements lease.Machine.
func (m *Remote) Name() string { return m.name }

// Slots implements lease.Machine.
func (m *Remote) Slots() []gpu.Slot { return m.devices.Slots }

// Clear implements lease.Machine.
func (m *Remote) Clear(ctx context.Context, device gpu.DeviceUUID, self lease.Worker, beside []lease.Worker) error {
	return m.call(ctx, opClear, clearRequest{device, self, beside}, nil)
}

// Watch implements lease.Machine. It receives the errors of the node over all its links, until ctx ends or the node is forgotten.
func (m *Remote) Watch(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error {
	reports := m.beginReports()
	defer m.endReports(reports)
	for {
		select {
		case x := <-reports:
			report(x.Device, x.Xid)
		case <-m.closed:
			return &lease.UnreachableError{Machine: m.name}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *peer) beginReports() chan xid {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = make(chan xid, maxUnsent)
	for _, x := range p.xids {
		p.reports <- x // at most maxUnsent
	}
	p.xids = nil
	return p.reports
}

// endReports keeps what a Watch has not received for the next one.
func (p *peer) endReports(reports chan xid) {
	p.mu.Lock()
	if p.reports == reports {
		p.reports = nil
	}
	p.mu.Unlock()
	for len(reports) > 0 {
		p.onXid(<-reports)
	}
}

// onXid handles an error of a Device. If the reader is far behind, the error is dropped: the reader knows that Devices fail.
func (p *peer) onXid(x xid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reports == nil {
		if len(p.xids) < maxUnsent {
			p.xids = append(p.xids, x)
		}
		return
	}
	select {
	case p.reports <- x:
	default:
	}
}

// Claim implements lease.Machine.
func (m *Remote) Claim(ctx context.Context, instance string, pid int) (w lease.Worker, err error) {
	err = m.call(ctx, opClaim, claimRequest{instance, pid}, &w)
	return w, err
}

// Confine implements lease.Machine. The node confines the worker before it answers any later call.
func (m *Remote) Confine(instance string, w lease.Worker) {
	_ = m.tell(opConfine, confineRequest{instance, w}) // where the node cannot be reached, its Leases are lost too
}

// Occupy implements lease.Machine. The node logs an error of a simulated Device.
func (m *Remote) Occupy(device gpu.DeviceUUID, w lease.Worker) error {
	return m.tell(opOccupy, occupyRequest{device, w})
}

// Freeze implements lease.Machine.
func (m *Remote) Freeze(ctx context.Context, w lease.Worker) bool {
	var frozen bool
	return m.call(ctx, opFreeze, w, &frozen) == nil && frozen
}

// Resume implements lease.Machine.
func (m *Remote) Resume(ctx context.Context, r lease.Resumption) (wait func() error) {
	m.keepArmed(r.Lease, r.Worker)
	answer := m.begin(opResume, resumeRequest{armRequest{r.Lease, r.Worker, r.Left}, r.Device, r.Beside})
	return func() error { return answer(ctx, nil) }
}

// Wait implements lease.Machine. It waits over all links of the node, until the worker has exited, ctx ends or the node is forgotten.
func (m *Remote) Wait(ctx context.Context, w lease.Worker) {
	m.mu.Lock()
	one := m.exits[w]
	if one == nil {
		one = &watchedExit{exited: make(chan struct{})}
		m.exits[w] = one
		if m.link != nil {
			_ = m.link.Tell(opWatch, w) // attach repeats it
		}
	}
	one.waiting++
	m.mu.Unlock()
	select {
	case <-one.exited:
	case <-m.closed:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if one.waiting--; one.waiting == 0 && m.exits[w] == one {
		delete(m.exits, w)
	}
}

// onExit handles the exit of a worker.
func (p *peer) onExit(e exit) {
	if e.Overstayed {
		time.AfterFunc(deadlineDelay, func() { p.exited(e.Worker) })
		return
	}
	p.exited(e.Worker)
}

func (p *peer) exited(w lease.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.exits[w]; one != nil && !one.isOver {
		one.isOver = true
		close(one.exited)
	}
}

// End implements lease.Machine. The node ends the worker even if ctx ends first.
func (m *Remote) End(ctx context.Context, w lease.Worker, grace time.Duration) error {
	return m.call(ctx, opEnd, endRequest{w, grace}, nil)
}

// Runs implements lease.Machine. Recovery does not ask nodes.
func (m *Remote) Runs(lease.Worker) bool { return false }

// Arm implements lease.Guard.
func (m *Remote) Arm(id string, w lease.Worker, left time.Duration) {
	m.keepArmed(id, w)
	_ = m.tell(opArm, armRequest{id, w, left}) // if the link is down, the next hello shows that the node does not know the Lease
}

// BeginArm implements lease.Machine.
func (m *Remote) BeginArm(ctx context.Context, id string, w lease.Worker, left time.Duration) (wait func() error) {
	m.keepArmed(id, w)
	answer := m.begin(opArm, armRequest{id, w, left})
	return func() error { return answer(ctx, nil) }
}

// keepArmed records a lease that the agent must know.
func (p *peer) keepArmed(id string, w lease.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[id] = w
}

// Disarm implements lease.Guard.
func (m *Remote) Disarm(id string) {
	m.mu.Lock()
	delete(m.armed, id)
	m.mu.Unlock()
	_ = m.tell(opDisarm, id) // if the link is down, the node reports the Lease in the next hello
}

// LendsNodes implements lease.Machine.
func (m *Remote) LendsNodes() bool { return m.devices.LendsNodes }

// Show implements lease.Machine.
func (m *Remote) Show(ctx context.Context, space string, devices []gpu.DeviceUUID) error {
	return m.call(ctx, opShow, showRequest{space, devices}, nil)
}

// Holders implements lease.Machine.
func (m *Remote) Holders(ctx context.Context) map[gpu.DeviceUUID][]int {
	if !m.LendsNodes() {
		return nil
	}
	holders, _ := ask[map[gpu.DeviceUUID][]int](ctx, m.peer, opHolders, struct{}{})
	return holders
}

// Outsiders implements lease.Machine.
func (m *Remote) Outsiders(ctx context.Context, uses []lease.ProcessUse, workers map[gpu.DeviceUUID][]lease.Worker) []lease.Outsider {
	all, _ := ask[[]lease.Outsider](ctx, m.peer, opOutsiders, outsidersRequest{uses, workers})
	return m.devices.ownOutsiders(all)
}

// Describe implements lease.Machine.
func (m *Remote) Describe(ctx context.Context, pid int) lease.ProcessInfo {
	info, _ := ask[lease.ProcessInfo](ctx, m.peer, opDescribe, pid)
	return lease.ProcessInfo{User: printable.Reason(info.User), Command: printable.Reason(info.Command)}
}

// Status implements lease.Machine.
func (m *Remote) Status(ctx context.Context) []gpu.DeviceStatus {
	m.mu.Lock()
	late := m.late
	m.mu.Unlock()
	if !late {
		rows, err := ask[[]statusRow](ctx, m.peer, opStatus, struct{}{})
		if err == nil {
			return m.keepStatus(m.devices.ownStatus(decodeStatus(rows, m.name)))
		}
	}
	return m.lastStatus()
}

func (p *peer) keepStatus(rows []gpu.DeviceStatus) []gpu.DeviceStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows, p.rowsAt = rows, time.Now()
	return rows
}

// lastStatus returns the last readings of a node that is slow, and otherwise its Devices without readings.
func (m *Remote) lastStatus() []gpu.DeviceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.link != nil && !m.late && m.rows != nil && time.Since(m.rowsAt) < statusAge {
		return m.rows
	}
	err := &lease.UnreachableError{Machine: m.name}
	rows := []gpu.DeviceStatus{}
	for _, s := range m.devices.Slots {
		if n := len(rows); n > 0 && rows[n-1].UUID == s.Device.UUID {
			continue
		}
		rows = append(rows, gpu.DeviceStatus{Device: s.Device, Node: m.name, Processes: []gpu.Process{}, Error: err.Error(), Cause: err})
	}
	return rows
}
