package shelftest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// Shelf has the methods of shelf.Shelf and shelf.Remote.
type Shelf interface {
	http.Handler
	Check(ctx context.Context, f *queue.Files, paths []string) (wrong []string, err error)
	NoteUses(text []byte, session func() queue.SessionHash)
	Uploads(ctx context.Context, stopped bool) ([]shelf.Upload, error)
	Remove(ctx context.Context, one shelf.Upload) (removed bool, err error)
}

var (
	_ Shelf = (*shelf.Shelf)(nil)
	_ Shelf = (*shelf.Remote)(nil)
)

// RemoteSuite begins the name of a test that has the files of its subtests behind a link.
const RemoteSuite = "TestRemoteSuite"

// New returns a Shelf. Below a test named RemoteSuite it is a Remote of one, on a node of the test.
func New(t testing.TB, config shelf.Config) Shelf {
	t.Helper()
	if !strings.HasPrefix(t.Name(), RemoteSuite) {
		return shelf.New(config)
	}
	return Remote(t, config)
}

// Remote returns a Remote of a Shelf on a node of the test. What is decided at the front is in the Remote alone.
func Remote(t testing.TB, config shelf.Config) *shelf.Remote {
	t.Helper()
	front := shelf.RemoteConfig{
		Space: config.Space, ReserveUpload: config.ReserveUpload, IsPresent: config.IsPresent, WriteTimeout: config.WriteTimeout, Logger: config.Logger,
	}
	config.ReserveUpload, config.IsPresent = nil, nil
	return NewNode(t, shelf.New(config)).Remote(t, front)
}

// Node serves a Shelf to Remotes, over connections of this machine.
type Node struct {
	listener net.Listener
	serving  sync.WaitGroup
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[*cutConn]struct{}
	limit int64 // bytes from the front on a new connection; 0: none
	down  bool
}

// NewNode returns a Node, which ends with the test.
func NewNode(t testing.TB, s *shelf.Shelf) *Node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{listener: listener, cancel: cancel, conns: map[*cutConn]struct{}{}}
	n.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() { shelf.Serve(ctx, conn, func(string) *shelf.Shelf { return s }, nil) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		n.Cut()
		cancel()
		n.serving.Wait()
	})
	return n
}

// Remote returns a Remote of the files on the node.
func (n *Node) Remote(t testing.TB, config shelf.RemoteConfig) *shelf.Remote {
	t.Helper()
	config.Dial = n.Dial
	r := shelf.NewRemote(config)
	t.Cleanup(r.Close)
	return r
}

var errDown = errors.New("the node is down")

// Dial connects to the node.
func (n *Node) Dial(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	limit, down := n.limit, n.down
	n.mu.Unlock()
	if down {
		return nil, errDown
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", n.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	c := &cutConn{Conn: conn, node: n, limit: limit}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[c] = struct{}{}
	return c, nil
}

// CutAfter lets each new connection end after so many bytes from the front; 0: none does.
func (n *Node) CutAfter(sent int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limit = sent
}

// Cut ends all connections.
func (n *Node) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Conn.Close()
	}
	clear(n.conns)
}

// SetDown lets Dial fail, and Cut.
func (n *Node) SetDown(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
	if down {
		n.Cut()
	}
}

// Conns returns the number of open connections.
func (n *Node) Conns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// cutConn is a connection of the front.
type cutConn struct {
	net.Conn
	node *Node

	mu          sync.Mutex
	sent, limit int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent += int64(len(p)); c.limit > 0 && c.sent > c.limit {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

func (c *cutConn) Close() error {
	c.node.mu.Lock()
	delete(c.node.conns, c)
	c.node.mu.Unlock()
	return c.Conn.Close()
}
