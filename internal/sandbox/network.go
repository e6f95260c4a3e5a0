package sandbox

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openNetwork brings up the loopback interface, the only one, and opens the sockets of the Spec. A socket belongs to the
// network in which it was created, so the host can use it from outside.
func openNetwork(spec Spec) (files []*os.File, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring up loopback interface: %w", err)
	}
	if spec.CatchAll {
		if err := catchAll(lo); err != nil {
			return nil, err
		}
	}
	for _, one := range spec.Sockets {
		f, err := one.open()
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("listen on %s for %s: %w", one.Address, one.Name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// catchAll makes every IPv4 address local. A socket on 0.0.0.0 then receives connections to any address, and its
// getsockname returns the address that the client wanted.
func catchAll(lo netlink.Link) error {
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route every address to the loopback interface: %w", err)
	}
	return nil
}

// file is implemented by the listeners and packet connections of package net.
type file interface {
	File() (*os.File, error)
	Close() error
}

// sharePort lets a socket at 0.0.0.0:8080, for egress, exist beside one at 127.0.0.1:8080, a visitors' address. The kernel
// prefers the more specific one. A Space that shares one of these ports takes only its own connections.
func sharePort(_, _ string, c syscall.RawConn) (err error) {
	controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return cmp.Or(err, controlErr)
}

// open returns a copy of the descriptor, which outlives the listener of this process.
func (s Socket) open() (*os.File, error) {
	config := net.ListenConfig{Control: sharePort}
	config.SetMultipathTCP(false)
	var opened any
	var err error
	if s.Network == "udp4" {
		opened, err = config.ListenPacket(context.Background(), s.Network, s.Address)
	} else {
		opened, err = config.Listen(context.Background(), s.Network, s.Address)
	}
	if err != nil {
		return nil, err
	}
	defer opened.(file).Close()
	return opened.(file).File()
}
