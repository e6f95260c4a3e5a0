package link_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// front is a server with a store of tokens and nodes in memory.
type front struct {
	*link.Server
	t    *testing.T
	life time.Duration // of certificates

	mu     sync.Mutex
	tokens map[string]*token
	keys   map[string][32]byte // of the nodes that have joined
	hellos []string
}

type token struct {
	hash    [32]byte
	uses    int
	expires time.Time
}

func newFront(t *testing.T, h link.Handler) *front {
	f := &front{t: t, tokens: map[string]*token{}, keys: map[string][32]byte{}}
	f.Server = &link.Server{CA: linktest.NewAuthority(t), Handler: h, Authorize: f.authorize, Redeem: f.redeem, Hello: f.hello}
	return f
}

func refused(format string, args ...any) error {
	return &link.RemoteError{Code: link.CodeRefused, Text: fmt.Sprintf(format, args...)}
}

func (f *front) authorize(node string, key [32]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys[node] != key {
		return refused("node %s is not known with this key", node)
	}
	return nil
}

func (f *front) redeem(_ context.Context, r link.JoinRequest) (link.JoinGrant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	token := f.tokens[r.TokenID]
	switch {
	case token == nil || token.hash != r.SecretHash:
		return link.JoinGrant{}, refused("unknown token")
	case token.uses == 0:
		return link.JoinGrant{}, refused("the token is used up")
	case time.Now().After(token.expires):
		return link.JoinGrant{}, refused("the token has expired")
	}
	token.uses--
	f.keys[r.Name] = r.Key
	return link.JoinGrant{Life: f.life}, nil
}

func (f *front) hello(l *link.Link, hello json.RawMessage) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hellos = append(f.hellos, l.Peer()+" "+string(hello))
	return "welcome " + l.Peer(), nil
}

// token returns the text of a new token with one use.
func (f *front) token(life time.Duration) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	created := f.CA.NewToken()
	f.tokens[created.ID] = &token{created.Hash(), 1, time.Now().Add(life)}
	return created.String()
}

// forget makes authorize refuse a node.
func (f *front) forget(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, node)
}

// join lets a node join, and sets the dialer's identity.
func (f *front) join(d *link.Dialer, node string) {
	f.t.Helper()
	id, err := d.Join(f.t.Context(), f.token(time.Hour), node)
	if err != nil {
		f.t.Fatal(err)
	}
	d.Identity = id
}

// listen serves on a loopback port until the end of the test, and returns a dialer.
func (f *front) listen() *link.Dialer {
	f.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.Serve(ctx, listener); err != nil {
			f.t.Errorf("serve: %v", err)
		}
	})
	f.t.Cleanup(func() { cancel(); serving.Wait() })
	return &link.Dialer{Address: listener.Addr().String(), Handler: echo}
}

// dial connects a node until the end of the test.
func (f *front) dial(d *link.Dialer) *link.Link {
	f.t.Helper()
	l, _, err := d.Dial(f.t.Context(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close(); l.Wait() })
	return l
}
