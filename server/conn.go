package server

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Conn is the TCP connection that a request came on: for what is asked once in its life, and of few only.
type Conn struct {
	Client, Server netip.AddrPort // its two ends; an IPv4 address is never one that is mapped into IPv6

	once  sync.Once
	owner string
}

type connKey struct{}

// ConnOf returns the connection of the request that ctx is of; nil if it came on a socket of another kind, or through
// no Server.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// IsLocal reports whether both ends are on this machine.
func (c *Conn) IsLocal() bool {
	return c.Client.Addr().IsLoopback() || c.Client.Addr() == c.Server.Addr()
}

// Owner is what find says of the connection. It is asked once; others wait for its answer meanwhile.
func (c *Conn) Owner(find func(client, server netip.AddrPort) string) string {
	c.once.Do(func() { c.owner = find(c.Client, c.Server) })
	return c.owner
}

type peerKey struct{}

// PeerOf returns the user whose process sits at the other end of a MountSocket; false for other connections.
func PeerOf(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(uint32)
	return uid, ok
}

// withConn is the ConnContext of every listener.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	if peer := peerOf(conn); peer != nil {
		return context.WithValue(ctx, peerKey{}, peer.Uid)
	}
	c, ok := conn.(*returnConn)
	if !ok {
		return ctx
	}
	if c.facts == nil {
		client, server := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
		c.facts = &Conn{Client: unmapped(client.AddrPort()), Server: unmapped(server.AddrPort())}
	}
	return context.WithValue(ctx, connKey{}, c.facts)
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
