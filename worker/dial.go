package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
	"spacehost/internal/space"
)

// dialer connects to the ports of one start of a Space. A connection always ends at a process of that start: the port
// comes from a frame, and a hostile Space would name the port of another program. dial may be called from any goroutine.
// Its error wraps ECONNREFUSED while no server listens, and is a *proctree.ForeignPortError for a port of another program.
type dialer interface {
	dial(ctx context.Context, port int) (net.Conn, error)
}

// loopbackDialer is the dialer of a Space that shares the host's network.
type loopbackDialer struct {
	ports *proctree.PortCheck
	// isHosts reports a port at which this host listens; nil: none. A request there would come back to the host.
	isHosts func(port int) bool
}

const dialTimeout = 5 * time.Second

// dial checks the listening socket before it connects, so that a foreign program receives no connection, and after: the
// port may have changed hands in between. A connection that a closed socket had not accepted is reset by the kernel.
func (d *loopbackDialer) dial(ctx context.Context, port int) (net.Conn, error) {
	if d.isHosts != nil && d.isHosts(port) {
		return nil, &proctree.ForeignPortError{Port: port}
	}
	before, err := d.ports.Owner(port)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	after, err := d.ports.Owner(port)
	if err == nil && after != before {
		err = &proctree.ForeignPortError{Port: port}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Dial implements Start.
func (p *Process) Dial(ctx context.Context, port int) (net.Conn, error) {
	return p.dialer.dial(ctx, port)
}

// Dialer is gradioapi.Dialer, which this package does not import.
type Dialer = interface {
	Dial(ctx context.Context) (net.Conn, error)
}

// server is the server that the app of one start has launched. It implements Dialer.
type server struct {
	supervisor *Supervisor
	process    Start
	session    *session
	port       int
}

// Upstream returns the Space's own server and the key that it requires; false while the server is down. Two servers are equal
// if start and port are. It implements gradioapi.Upstream.
func (s *Supervisor) Upstream() (own Dialer, key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage != space.Running || s.port == 0 {
		return nil, "", false
	}
	return server{s, s.current, s.session, s.port}, s.key, true
}

// Dial connects to the server. It fails unless the connection ends at a process of that start, also after a later start has
// received the same port.
func (u server) Dial(ctx context.Context) (net.Conn, error) {
	if p, _ := u.supervisor.process(); p == nil || p != u.process {
		return nil, errors.New("connect to the Space: this start of it has ended")
	}
	conn, err := u.process.Dial(ctx, u.port)
	if foreign := (*proctree.ForeignPortError)(nil); errors.As(err, &foreign) {
		u.session.foreignPort.Do(func() { u.supervisor.noteForeignPort(foreign) })
	}
	return conn, err
}

func (s *Supervisor) noteForeignPort(foreign *proctree.ForeignPortError) {
	s.mu.Lock()
	config := s.config // Configure may replace it
	s.mu.Unlock()
	config.Logger.Warn("port of another program", zap.Int("port", foreign.Port))
	config.Note("warning: " + foreign.Error() + ". Restart the Space, and check its code if the warning returns.")
}

// sandboxDialer is the dialer of a Space with a network of its own. Whatever listens there belongs to the Space, except the
// host's sockets: a connection to one of them would come back to the host.
type sandboxDialer struct{ sandbox *sandbox.Sandbox }

func (d sandboxDialer) dial(ctx context.Context, port int) (net.Conn, error) {
	if d.sandbox.HasSocket(port) {
		return nil, &proctree.ForeignPortError{Port: port}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d.sandbox.Dial(ctx, port)
}
