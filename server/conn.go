package server

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Conn is the TCP connection of a request. It caches a fact that is looked up once per connection, and only for few
// connections.
type Conn struct {
	Client, Server netip.AddrPort // the two ends; IPv4 addresses are never mapped into IPv6; zero if it is no TCP connection
	Attached       bool           // it came through Attach: the owner is certain

	stream *returnConn // the connection itself; nil for a client on another machine that Attach serves

	once  sync.Once
	owner string

	waiting bool   // for its lookup; guarded by connLimit
	closed  bool   // guarded by connLimit
	counted string // the owner in whose number the connection is included; guarded by connLimit
}

type connKey struct{}

// ConnOf returns the connection of the request that ctx belongs to. It returns nil for a socket of another kind, or a
// request that came through no Server.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// IsLocal reports whether both ends are on this machine. A client may choose which of the machine's addresses it uses.
func (c *Conn) IsLocal() bool {
	return c.Attached || c.Client.Addr().IsLoopback() || c.Server.Addr().IsLoopback() || c.Client.Addr() == c.Server.Addr()
}

// Owner returns the result of find for the connection. find runs once; concurrent callers wait for its result.
func (c *Conn) Owner(find func(client, server netip.AddrPort) string) string {
	c.once.Do(func() { c.owner = find(c.Client, c.Server) })
	return c.owner
}

type peerKey struct{}

// PeerOf returns the user of the process at the other end of a MountSocket connection. ok is false for other
// connections.
func PeerOf(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(uint32)
	return uid, ok
}

// withConn is the ConnContext of every listener.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	if peer := peerOf(conn); peer != nil {
		return context.WithValue(ctx, peerKey{}, peer.Uid)
	}
	switch c := conn.(type) {
	case *returnConn:
		return context.WithValue(ctx, connKey{}, c.info)
	case *ownedConn:
		return context.WithValue(ctx, connKey{}, c.info)
	}
	return ctx
}

// attach sets the owner, if it is known, before any other goroutine has the Conn.
func (c *Conn) attach(owner string) {
	if owner != "" {
		c.Attached = true
		c.Owner(func(netip.AddrPort, netip.AddrPort) string { return owner })
	}
}

func connOf(c *net.TCPConn) *Conn {
	client, server := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
	return &Conn{Client: unmapped(client.AddrPort()), Server: unmapped(server.AddrPort())}
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
