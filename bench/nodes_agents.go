package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/link"
	machines "spacehost/internal/machine"
	"spacehost/internal/nodeagent"
	"spacehost/internal/nodes"
	"spacehost/migrations"
)

// devicesPerNode is the number of simulated GPUs of a node.
const devicesPerNode = 8

func nodeName(n int) string { return fmt.Sprintf("node-%04d", n) }

// joinNodes prepares the state folder of a front that a number of nodes and one more (evilName) have joined, and the state folders of
// their agents below agents.
func joinNodes(ctx context.Context, state, agents string, count int) (err error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	authority, err := link.OpenAuthority(filepath.Join(state, "cluster"))
	if err != nil {
		return err
	}
	db, err := migrations.Open(ctx, filepath.Join(state, "spacehost.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store := nodes.NewStore(db, db, time.Now)
	secret := sha256.Sum256([]byte(state))
	if _, err := store.CreateJoin(ctx, nodes.JoinSpec{ID: "bench", Hash: secret, Names: "node-*", Life: time.Hour, By: "bench"}); err != nil {
		return err
	}
	joining, ctx := errgroup.WithContext(ctx)
	joining.SetLimit(32) // most of the time is spent on fsync
	names := []string{evilName}
	for n := range count {
		names = append(names, nodeName(n))
	}
	for _, name := range names {
		joining.Go(func() error {
			id, err := authority.NewIdentity(name, 0)
			if err != nil {
				return err
			}
			if _, err := store.Redeem(ctx, secret, name, sha256.Sum256(id.Certificate.Leaf.RawSubjectPublicKeyInfo)); err != nil {
				return err
			}
			folder := filepath.Join(agents, name, nodeagent.Folder)
			return errors.Join(os.MkdirAll(folder, 0o700), id.Save(folder))
		})
	}
	return joining.Wait()
}

// swarm is a number of simulated nodes: the agents are real, and their GPUs and processes are simulated.
type swarm struct {
	nodes   []*simulatedNode
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	conns map[*swarmConn]bool
	wrong []error // of agents that have ended
}

// swarmConn is a connection of an agent.
type swarmConn struct {
	*net.TCPConn
	swarm *swarm
}

// Close implements net.Conn.
func (c *swarmConn) Close() error {
	c.swarm.mu.Lock()
	delete(c.swarm.conns, c)
	c.swarm.mu.Unlock()
	return c.TCPConn.Close()
}

// startSwarm starts the agents of all nodes at once. They connect by themselves.
func startSwarm(front, agents string, count int) (*swarm, error) {
	debug.SetGCPercent(400) // the agents of a cluster share no processor
	ctx, stop := context.WithCancel(context.Background())
	s := &swarm{stop: stop, conns: map[*swarmConn]bool{}}
	for n := range count {
		one, err := newSimulatedNode(n)
		if err != nil {
			s.end()
			return nil, err
		}
		s.nodes = append(s.nodes, one)
	}
	for n, one := range s.nodes {
		s.running.Go(func() { _ = one.Run(ctx) })
		s.running.Go(func() {
			err := nodeagent.Run(ctx, nodeagent.Config{
				Front: front, State: filepath.Join(agents, nodeName(n)), Version: "bench", Service: one, Logger: zap.NewNop(), DialContext: s.dialFrom(n),
			})
			if err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.wrong = append(s.wrong, fmt.Errorf("%s: %w", nodeName(n), err))
			}
		})
	}
	return s, nil
}

// dialFrom dials from an address of this machine that only that node has: the front limits handshakes by address.
func (s *swarm) dialFrom(n int) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(1+n/250), byte(1+n%250))}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &swarmConn{raw.(*net.TCPConn), s}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		return c, nil
	}
}

// cut resets all connections at once, and returns when it began.
func (s *swarm) cut() time.Time {
	s.mu.Lock()
	all := s.conns
	s.conns = map[*swarmConn]bool{}
	s.mu.Unlock()
	began := time.Now()
	for c := range all {
		_ = c.SetLinger(0) // fails only if it is closed
		c.TCPConn.Close()
	}
	return began
}

func (s *swarm) end() {
	s.stop()
	s.running.Wait()
}

// open returns the number of connections.
func (s *swarm) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// connectedSince returns when the last node has connected; false if one has not since then.
func (s *swarm) connectedSince(began time.Time) (last time.Time, all bool) {
	for _, n := range s.nodes {
		at := n.connectedAt()
		if at.Before(began) {
			return last, false
		}
		if at.After(last) {
			last = at
		}
	}
	return last, true
}

// awaitAll waits until all nodes have connected since began, and then until each has its spare connections.
func (s *swarm) awaitAll(ctx context.Context, began time.Time) (control, all time.Duration, err error) {
	for {
		if last, ok := s.connectedSince(began); ok && control == 0 {
			control = last.Sub(began)
		}
		if control > 0 && s.open() >= connectionsPerNode*len(s.nodes) {
			return control, time.Since(began), nil
		}
		s.mu.Lock()
		err := errors.Join(s.wrong...)
		s.mu.Unlock()
		if err != nil {
			return control, 0, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			missing := 0
			for _, n := range s.nodes {
				if n.connectedAt().Before(began) {
					missing++
				}
			}
			return control, 0, fmt.Errorf("%d nodes have not connected, %d connections: %w", missing, s.open(), context.Cause(ctx))
		}
	}
}

// connectionsPerNode are those of an idle node: the control connection and 4 spares (package link).
const connectionsPerNode = 5

// simulatedNode is a node with simulated GPUs and processes.
type simulatedNode struct {
	*machines.Node
	mu sync.Mutex
	at time.Time // of the latest connection
}

var _ nodeagent.Service = (*simulatedNode)(nil)

func newSimulatedNode(n int) (*simulatedNode, error) {
	sim := &simulation{workers: map[int]*simulatedWorker{}}
	for d := range devicesPerNode {
		sim.devices = append(sim.devices, gpu.Device{
			UUID: gpu.DeviceUUID(fmt.Sprintf("GPU-%08x-0000-4000-8000-%012x", n, d)), Index: d, Name: "NVIDIA H200", MemoryTotal: 141 << 30,
		})
	}
	pool, err := gpu.NewPool(context.Background(), sim, 1)
	if err != nil {
		return nil, err
	}
	node, err := machines.NewNode(machines.NodeConfig{Local: lease.Local{Pool: pool, Processes: sim}})
	return &simulatedNode{Node: node}, err
}

// Connected implements nodeagent.Service.
func (n *simulatedNode) Connected(l *link.Link, welcome json.RawMessage) {
	n.Node.Connected(l, welcome)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = time.Now()
}

// Leave implements nodeagent.Service. No Space starts here.
func (n *simulatedNode) Leave() {}

// Running implements nodeagent.Service.
func (n *simulatedNode) Running() (processes, leases int) { return 0, n.Leases() }

// End implements nodeagent.Service.
func (n *simulatedNode) End() {}

func (n *simulatedNode) connectedAt() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

// simulation are the GPUs and the processes of a simulated node. A process begins when a lease is claimed for it.
type simulation struct {
	devices []gpu.Device

	mu      sync.Mutex
	workers map[int]*simulatedWorker
}

type simulatedWorker struct {
	device gpu.DeviceUUID // "": none yet
	exited chan struct{}
}

var (
	_ gpu.Simulator   = (*simulation)(nil)
	_ lease.Processes = (*simulation)(nil)
)

// workerMemory is what a worker uses of its GPU.
const workerMemory = 8 << 30

func (s *simulation) Devices(context.Context) ([]gpu.Device, error) {
	return slices.Clone(s.devices), nil
}

func (s *simulation) Usage(_ context.Context, uuid gpu.DeviceUUID) (all []gpu.Process, _ gpu.Memory, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, w := range s.workers {
		if w.device == uuid {
			all = append(all, gpu.Process{PID: pid, Memory: workerMemory})
		}
	}
	slices.SortFunc(all, func(a, b gpu.Process) int { return a.PID - b.PID })
	total, used := s.devices[0].MemoryTotal, uint64(len(all))*workerMemory+512<<20
	return all, gpu.Memory{Total: total, Used: used, Free: total - used}, nil
}

func (s *simulation) Memory(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Memory, error) {
	_, memory, err := s.Usage(ctx, uuid)
	return memory, err
}

func (s *simulation) Close() error { return nil }

func (s *simulation) Occupy(uuid gpu.DeviceUUID, pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.workers[pid]; w != nil {
		w.device = uuid
	}
	return nil
}

func (s *simulation) FromInside(_ string, pid int) (host int, start uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers[pid] = &simulatedWorker{exited: make(chan struct{})}
	return pid, uint64(pid), true
}

func (s *simulation) Confine(string, int, uint64)           {}
func (s *simulation) Freeze(int, uint64) bool               { return false }
func (s *simulation) Thaw(int, uint64) error                { return nil }
func (s *simulation) SpaceOf(int) (string, uint64)          { return "", 0 }
func (s *simulation) Within(pid, worker int, _ uint64) bool { return pid == worker }

func (s *simulation) Wait(ctx context.Context, pid int, _ uint64) {
	s.mu.Lock()
	w := s.workers[pid]
	s.mu.Unlock()
	if w == nil {
		return
	}
	select {
	case <-w.exited:
	case <-ctx.Done():
	}
}

func (s *simulation) End(pid int, _ uint64, _ time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.workers[pid]; w != nil {
		close(w.exited)
		delete(s.workers, pid)
	}
	return true
}

// settledOnce counts the ended leases of a database, and those of them with exactly one settlement.
func settledOnce(ctx context.Context, state string) (ended, settled int, err error) {
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(state, "spacehost.db")+"?_busy_timeout=30000")
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(n = 1), 0) FROM leases l LEFT JOIN
		(SELECT lease_id, count(*) AS n FROM ledger WHERE kind = 'settle' GROUP BY lease_id) s ON s.lease_id = l.id WHERE ended_at IS NOT NULL`).Scan(&ended, &settled)
	return ended, settled, err
}
