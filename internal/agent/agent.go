// Package agent keeps the processes of Spaces while the host restarts, on the host's own machine and on nodes.
//
// # Terms
//
// The agent is a process of this program beside the host. The host starts each process of a Space through it. When the host
// ends or crashes, the agent and the processes stay, and the next host takes them over. On a node, the agent is on another machine than
// its host, the front.
//
// # Types and callers
//
// Command `agent` calls Serve. The host calls Connect, which starts an agent if there is none. The Client that it returns is
// the worker.Keeper of every Space and the lease.Guard of the broker. Both machines of a node use package host: the node answers by
// Starts, and the front reaches them by a Remote over the link.
//
// # Connections
//
// The agent listens at a unix socket in the state folder. One connection of a host lasts as long as the host, and one of each
// process as long as the host uses the process; the end of the former tells the agent that the host is gone. Every other
// request has a connection of its own. Sockets are passed as descriptors: those of a sandbox's network, the listener of the device
// API, and each connection to a Space's server. No byte of them passes the agent.
//
// # Failures
//
// A process whose agent has ended ends too, because its channel closes. A host ends and replaces an agent that speaks another
// protocol. An agent without a host ends the processes after a time, and exits. On a node it keeps them. A process behind a link
// that has ended has ended for the front (worker.ErrUnreachable), and may be taken over by the next start.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/guard"
	"spacehost/internal/proctree"
)

// ServeConfig is what an agent needs.
type ServeConfig struct {
	State string // state folder of the host
	// OrphanAfter is how long the processes stay without a host, until a host names another time.
	OrphanAfter time.Duration
	Logger      *zap.Logger // nil: no log
	// Ready is called once, when hosts can connect; nil: no call. running counts what runs, with the locks of what ends workers that
	// overstay. It may be called until Serve returns.
	Ready func(running func() (processes, leases int))
}

// endGrace is the time between SIGTERM and SIGKILL of a process.
const endGrace = 2 * time.Second

// server is a running agent.
type server struct {
	config    ServeConfig
	log       *zap.Logger
	processes *proctree.Processes
	guard     guard.Guard
	ctx       context.Context // ends first
	stop      context.CancelCauseFunc
	over      context.Context // ends when all processes have exited

	starts *Starts

	mu       sync.Mutex
	devices  *os.File      // listener of the device API
	host     net.Conn      // of the present host; nil: none
	waits    time.Duration // ServeConfig.OrphanAfter, or that of the last host
	orphaned *time.Timer
}

// The reasons for the end of an agent.
var (
	errStopped  = errors.New("the host has ended it")
	errOrphaned = errors.New("no host has come back in time")
)

// Serve runs an agent until ctx ends, a host ends it or no host comes for too long. It ends all processes before it returns. The error
// reports why it cannot begin: another agent has the state folder.
func Serve(ctx context.Context, config ServeConfig) error {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	unlock, err := awaitLock(ctx, config.State)
	if err != nil {
		return err
	}
	defer unlock()
	path := socketPath(config.State)
	_ = os.Remove(path)       // of an agent that has crashed; Listen reports what cannot be removed
	mask := unix.Umask(0o177) // as for the control socket
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(mask)
	if err != nil {
		return fmt.Errorf("listen for hosts: %w", err)
	}
	defer listener.Close()
	s := &server{config: config, log: config.Logger, processes: &proctree.Processes{Logger: config.Logger}, starts: NewStarts(config.Logger)}
	s.guard.Processes, s.guard.Logger = s.processes, s.log
	s.ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	over, closeAll := context.WithCancel(context.Background())
	s.over = over
	defer closeAll()
	s.log.Info("agent starts", zap.String("containment", s.processes.Contain()))
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.processes.Run(s.ctx) }) // ends with ctx
	serving.Go(func() { s.accept(listener) })
	s.setHost(nil, config.OrphanAfter)
	if config.Ready != nil {
		config.Ready(func() (processes, leases int) { return s.starts.Count(), len(s.guard.Report().Open) })
	}
	<-s.ctx.Done()
	s.log.Info("agent ends", zap.NamedError("cause", context.Cause(s.ctx)))
	listener.Close()
	s.starts.EndAll()
	closeAll()
	serving.Wait()
	return nil
}

// socketPath is where the agent of a state folder listens.
func socketPath(state string) string { return filepath.Join(state, "agent.sock") }

// lockPause is the interval at which awaitLock tries again.
const lockPause = 20 * time.Millisecond

// awaitLock makes sure that a state folder has one agent. It waits for one that is ending: that one answers no host any more, and still
// ends its processes.
func awaitLock(ctx context.Context, state string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(state, "agent.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w; choose another with --state", err)
	}
	late := time.NewTimer(startTimeout)
	defer late.Stop()
	for unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if conn, err := net.Dial("unix", socketPath(state)); err == nil {
			conn.Close()
			file.Close()
			return nil, fmt.Errorf("another agent runs on the state folder %s: it serves every host of this folder", state)
		}
		select {
		case <-time.After(lockPause):
		case <-late.C:
			file.Close()
			return nil, fmt.Errorf("another agent ends on the state folder %s, and has not exited after %s; end its process", state, startTimeout)
		case <-ctx.Done():
			file.Close()
			return nil, context.Cause(ctx)
		}
	}
	return func() { file.Close() }, nil
}

func (s *server) accept(listener *net.UnixListener) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			s.log.Error("accept", zap.Error(err))
			select { // no descriptor is free
			case <-time.After(100 * time.Millisecond):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		serving.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(s.over, func() { conn.Close() })()
			if err := s.check(conn); err != nil {
				s.log.Warn("connection refused", zap.Error(err))
				return
			}
			s.serve(conn)
		})
	}
}

// check refuses other users, and processes of a Space of this user.
func (s *server) check(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if err := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if uid := os.Geteuid(); int(peer.Uid) != uid && peer.Uid != 0 {
		return fmt.Errorf("uid %d is not %d", peer.Uid, uid)
	}
	if s.processes.Untrusted(int(peer.Pid)) {
		return fmt.Errorf("process %d belongs to a Space", peer.Pid)
	}
	return nil
}

// setHost records the connection of the present host, and closes that of the one before. nil: there is none. wait is how long the
// processes stay without a host; 0: as before.
func (s *server) setHost(conn net.Conn, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host != nil && conn != nil {
		s.host.Close() // of a host that has lost the lock of the state folder
	}
	s.host, s.waits = conn, cmp.Or(wait, s.waits)
	s.guard.SetAlone(conn == nil)
	if s.orphaned != nil {
		s.orphaned.Stop()
	}
	if conn == nil {
		s.log.Info("no host is connected", zap.Duration("orphan_after", s.waits))
		s.orphaned = time.AfterFunc(s.waits, func() { s.stop(errOrphaned) })
	}
}

// leave records that a host has gone.
func (s *server) leave(conn net.Conn) {
	s.mu.Lock()
	present := s.host == conn
	s.mu.Unlock()
	if present {
		s.setHost(nil, 0)
	}
}
