package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/outbox"
	"spacehost/worker"
)

// instance is one start of a Space.
type instance struct {
	kept    worker.Kept
	process worker.LocalProcess
	relay   *worker.Relay
	sockets []*os.File    // of its sandbox
	over    chan struct{} // closed when it is forgotten

	mu   sync.Mutex
	host *toHost // nil: none
}

// serve answers the request of a connection.
func (s *server) serve(conn *net.UnixConn) {
	var q request
	if err := readAs(conn, kindRequest, &q); err != nil {
		s.log.Warn("request not read", zap.Error(err))
		return
	}
	switch q.Op {
	case "host":
		s.serveHost(conn, q)
		return
	case "total":
		var a answer
		if q.Limits != nil {
			rest, err := s.processes.Cgroups().LimitTotal(*q.Limits)
			a.Rest, a.Error = &rest, toWire(err)
		}
		s.starts.answer(conn, a, nil)
		return
	case "launch":
		s.starts.Launch(conn, s.launch(q), nil)
		return
	}
	i := s.starts.get(q.Instance)
	if i == nil {
		s.starts.answer(conn, answer{Error: toWire(errEnded(q.Instance))}, nil)
		return
	}
	if q.Op == "take" {
		s.starts.serve(conn, i)
		return
	}
	a, file := i.answer(s.ctx, q)
	var files []*os.File
	if file != nil {
		files = []*os.File{file}
		defer file.Close()
	}
	s.starts.answer(conn, a, files)
}

// serveHost serves the connection of a host until it ends.
func (s *server) serveHost(conn *net.UnixConn, q request) {
	if q.Protocol != protocol {
		s.starts.answer(conn, answer{Protocol: protocol, PID: os.Getpid()}, nil)
		s.stop(fmt.Errorf("a host speaks protocol %d, this agent %d", q.Protocol, protocol))
		return
	}
	s.setHost(conn, q.OrphanAfter)
	defer s.leave(conn)
	a := answer{Protocol: protocol, PID: os.Getpid(), Kept: s.starts.Kept(), Report: s.guard.Report()}
	devices, err := s.openDevices(conn, q.Files)
	if err != nil {
		s.starts.answer(conn, answer{Error: toWire(err)}, nil)
		return
	}
	s.log.Info("host has come", zap.Int("instances", len(a.Kept)))
	s.starts.answer(conn, a, []*os.File{devices})
	reader := bufio.NewReader(conn)
	for {
		k, body, err := read(reader)
		if err != nil {
			return
		}
		switch k {
		case kindArm:
			var a arm
			if err = json.Unmarshal(body, &a); err == nil {
				s.guard.Arm(a.Lease, a.Worker, a.Left)
			}
		case kindDisarm:
			s.guard.Disarm(string(body))
		case kindStop:
			s.stop(errStopped)
		default:
			err = fmt.Errorf("unknown message %q", k)
		}
		if err != nil {
			s.log.Warn("host not understood", zap.Error(err))
			return
		}
	}
}

// openDevices returns the listener of the device API, which every host uses.
func (s *server) openDevices(conn *net.UnixConn, files int) (*os.File, error) {
	passed, err := readFiles(conn, files)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devices != nil {
		closeAll(passed)
		return s.devices, nil
	}
	if len(passed) > 0 {
		s.devices = passed[0]
		return s.devices, nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the device API: %w", err)
	}
	defer l.Close() // the descriptor below goes on
	s.devices, err = l.(*net.TCPListener).File()
	return s.devices, err
}

// launch starts a process of the host's own machine.
func (s *server) launch(q request) Launcher {
	return func(to worker.Reporter) (worker.Kept, worker.LocalProcess, []*os.File, error) {
		if q.Config == nil || q.Kept == nil {
			return worker.Kept{}, nil, nil, errors.New("launch without a configuration")
		}
		config, kept := *q.Config, *q.Kept
		var sockets []*os.File
		config.Reporter, config.Logger, config.Cgroups = to, s.log.With(zap.String("space", kept.Space)), s.processes.Cgroups()
		config.Opened = func(all []*os.File) { sockets = all }
		process, err := worker.StartProcess(config)
		if err != nil {
			return kept, nil, sockets, err
		}
		tree := process.Tree()
		kept.Facts, kept.Cgroup = kept.Facts.Of(tree), tree.Cgroup
		s.processes.Register(kept.Space, kept.Facts.Instance, tree)
		return kept, process, sockets, nil
	}
}

// serve gives a process to a host until the connection ends.
func (s *Starts) serve(conn net.Conn, i *instance) {
	t := i.process.Tree()
	tree := &wireTree{Root: t.Root, Runner: t.Runner, Marker: t.Marker, Cgroup: t.Cgroup, Translates: t.HostPID != nil}
	s.answer(conn, answer{Tree: tree, Facts: &i.kept.Facts}, i.sockets)
	conn = outbox.Direct(conn)
	host := &toHost{conn: conn}
	if !i.attach(host) {
		return
	}
	end, stopEnd := context.WithCancel(context.Background())
	defer stopEnd()
	reader := bufio.NewReaderSize(conn, 64<<10)
	for {
		k, body, err := read(reader)
		if err == nil {
			err = i.order(end, stopEnd, k, body)
		}
		if err != nil {
			break
		}
	}
	i.detach(host)
}

// attach gives the reports to a host, instead of to an earlier one. false: the process has ended.
func (i *instance) attach(host *toHost) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.host != nil {
		i.host.conn.Close()
		i.leave()
	}
	i.host = host
	select {
	case <-i.over:
		host.write(kindDone, encode(done{toWire(i.process.Err()), i.process.Exit(), i.process.Tail()}))
		return false
	default:
	}
	i.relay.Attach(host)
	return true
}

func (i *instance) detach(host *toHost) {
	host.conn.Close() // a report that waits for the host ends
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.host == host {
		i.leave()
	}
}

// leave is called with the lock held.
func (i *instance) leave() {
	i.host = nil
	for _, cancel := range i.relay.Detach() {
		i.process.Send(cancel)
	}
}

// order handles a message of the host.
func (i *instance) order(end context.Context, kill context.CancelFunc, k kind, body []byte) error {
	switch k {
	case kindFrame:
		f, err := worker.ParseFrame(body)
		if err != nil {
			return err
		}
		i.relay.Order(f)
		i.process.Send(f)
	case kindBegin:
		i.process.Begin()
	case kindFail:
		var reason wireError
		if err := json.Unmarshal(body, &reason); err != nil {
			return err
		}
		i.process.Fail(reason.error())
	case kindEnd:
		var grace time.Duration
		if err := json.Unmarshal(body, &grace); err != nil {
			return err
		}
		go i.process.End(end, grace)
	case kindKill:
		kill()
	default:
		return fmt.Errorf("unknown message %q", k)
	}
	return nil
}

// answer answers a request about the process.
func (i *instance) answer(ctx context.Context, q request) (a answer, file *os.File) {
	var err error
	switch q.Op {
	case "dial":
		file, err = i.dial(ctx, q.Port)
	case "pid":
		if translate := i.process.Tree().HostPID; translate != nil {
			a.PID, err = translate(q.PID)
		}
	case "inspect":
		found := i.process.Inspect(ctx, q.CanRun)
		a.Inspection = &found
	case "show":
		err = i.process.Show(ctx, q.Targets)
	case "end":
		i.process.End(ctx, endGrace)
	default:
		err = fmt.Errorf("unknown request %q", q.Op)
	}
	a.Error = toWire(err)
	return a, file
}

// dial connects to a port of the process.
func (i *instance) dial(ctx context.Context, port int) (*os.File, error) {
	conn, err := i.process.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // the descriptor goes on
	file, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("connection to port %d has no descriptor", port)
	}
	return file.File()
}
