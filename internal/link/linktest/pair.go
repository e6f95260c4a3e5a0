// Package linktest provides links for tests: real ones in memory, and a network with faults.
package linktest

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"testing"

	"spacehost/internal/link"
)

// Handler is a link.Handler of functions. One that is nil fails a call, drops a message, closes a stream or ignores Suspect.
type Handler struct {
	OnCall    func(ctx context.Context, l *link.Link, op string, body json.RawMessage) (any, error)
	OnTell    func(l *link.Link, op string, body json.RawMessage)
	OnStream  func(l *link.Link, hello json.RawMessage, conn net.Conn)
	OnSuspect func(l *link.Link, suspect bool)
}

var _ link.Handler = Handler{}

// Call calls OnCall.
func (h Handler) Call(ctx context.Context, l *link.Link, op string, body json.RawMessage) (any, error) {
	if h.OnCall == nil {
		return nil, &link.RemoteError{Code: link.CodeProtocol, Text: "no calls here"}
	}
	return h.OnCall(ctx, l, op, body)
}

// Tell calls OnTell.
func (h Handler) Tell(l *link.Link, op string, body json.RawMessage) {
	if h.OnTell != nil {
		h.OnTell(l, op, body)
	}
}

// Stream calls OnStream.
func (h Handler) Stream(l *link.Link, hello json.RawMessage, conn net.Conn) {
	if h.OnStream == nil {
		conn.Close()
		return
	}
	h.OnStream(l, hello, conn)
}

// Suspect calls OnSuspect.
func (h Handler) Suspect(l *link.Link, suspect bool) {
	if h.OnSuspect != nil {
		h.OnSuspect(l, suspect)
	}
}

// Node is the name of the node of a Pair.
const Node = "node"

// Ends are the two ends of a link, with what connects them.
type Ends struct {
	Front, Agent *link.Link
	Server       *link.Server
	Dialer       *link.Dialer // of the agent; it can dial again
	Proxy        *Proxy       // between the two
}

// Pair returns a link in memory, with the handlers of its ends. It can be used in a bubble of testing/synctest, and ends with the test.
func Pair(t testing.TB, front, agent link.Handler) *Ends {
	t.Helper()
	links := make(chan *link.Link, 1)
	server := &link.Server{
		CA: NewAuthority(t), Handler: front,
		Authorize: func(string, [32]byte) error { return nil },
		Hello: func(l *link.Link, _ json.RawMessage) (any, error) {
			select {
			case links <- l:
			default: // the test has dialled again
			}
			return nil, nil
		},
	}
	dialer, proxy := Connect(t, server)
	dialer.Identity, dialer.Handler = NewIdentity(t, server.CA, Node), agent
	l, _, err := dialer.Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); l.Wait() })
	return &Ends{Front: <-links, Agent: l, Server: server, Dialer: dialer, Proxy: proxy}
}

// Connect runs a server in memory until the end of the test. It returns a dialer of that server, without identity and handler, and the
// proxy between them.
func Connect(t testing.TB, server *link.Server) (*link.Dialer, *Proxy) {
	t.Helper()
	network, outside := NewNetwork(), NewNetwork()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, network); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	inside := network.Dial("10.0.0.2")
	proxy := NewProxy(t, outside, func(ctx context.Context) (net.Conn, error) { return inside(ctx, "tcp", Address) })
	return &link.Dialer{Address: Address, DialContext: outside.Dial("10.0.0.2")}, proxy
}

// NewAuthority returns the authority of a cluster in a temporary folder.
func NewAuthority(t testing.TB) *link.Authority {
	t.Helper()
	a, err := link.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// NewIdentity returns an identity of a node, without joining.
func NewIdentity(t testing.TB, ca *link.Authority, node string) link.Identity {
	t.Helper()
	id, err := ca.NewIdentity(node, 0)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
