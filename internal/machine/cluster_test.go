package machine

import (
	"context"
	"encoding/json"
	"sync"
	"testing"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// cluster is a Fleet with the server of its links, on a network in memory.
type cluster struct {
	*Fleet
	t      *testing.T
	server *link.Server
	dialer *link.Dialer
	proxy  *linktest.Proxy
}

func newCluster(t *testing.T, broker Broker) *cluster {
	t.Helper()
	c := &cluster{Fleet: NewFleet(broker, nil), t: t}
	c.server = &link.Server{
		CA: linktest.NewAuthority(t), Handler: c.Fleet,
		Authorize: func(string, [32]byte) error { return nil },
		Hello:     func(l *link.Link, hello json.RawMessage) (any, error) { return c.Hello(l, hello) },
	}
	c.dialer, c.proxy = linktest.Connect(t, c.server)
	return c
}

// counter counts what arrives at a Node.
type counter struct {
	*Node
	mu           sync.Mutex
	calls, tells map[string]int
}

func (c *counter) Call(ctx context.Context, l *link.Link, op string, body json.RawMessage) (any, error) {
	c.mu.Lock()
	c.calls[op]++
	c.mu.Unlock()
	return c.Node.Call(ctx, l, op, body)
}

func (c *counter) Tell(l *link.Link, op string, body json.RawMessage) {
	c.mu.Lock()
	c.tells[op]++
	c.mu.Unlock()
	c.Node.Tell(l, op, body)
}

// connect dials as the agent of a node does.
func (c *cluster) connect(n *Node, name string) (*link.Link, *counter, error) {
	c.t.Helper()
	counts := &counter{Node: n, calls: map[string]int{}, tells: map[string]int{}}
	dialer := *c.dialer
	dialer.Identity, dialer.Handler = linktest.NewIdentity(c.t, c.server.CA, name), counts
	hello, err := n.Hello(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	l, welcome, err := dialer.Dial(c.t.Context(), hello)
	if err != nil {
		return nil, nil, err
	}
	c.t.Cleanup(func() { l.Close(); l.Wait() })
	n.Connected(l, welcome)
	return l, counts, nil
}
