package proctree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// diagSocket is one socket in a reply of sock_diag(7).
type diagSocket struct {
	state      byte
	inode, uid uint32
	local      netip.AddrPort
}

const (
	diagTimeout = 900_000 // microseconds, the bound of the wait for the kernel, which answers at once
	replySize   = 4 << 10
	dumpSize    = 64 << 10 // more than the kernel puts into one part of a dump (net/netlink/af_netlink.c, netlink_dump)
)

// diagnose returns the sockets of a request: the one with exactly its two ends, or with unix.NLM_F_DUMP all that match.
// The error wraps unix.ENOENT if there is none. A machine without sock_diag gives the same error, or another one.
//
// The exchange is written out, because that of the netlink package takes 64 kB per reply: a lookup per connection would
// be most of what a connection costs.
func diagnose(flags int, request socketRequest) (found []diagSocket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("query sockets: %w", err)
	}
	defer unix.Close(fd)
	r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, flags)
	r.AddData(request)
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: diagTimeout}),
		unix.Sendto(fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err != nil {
		return nil, fmt.Errorf("query sockets: %w", err)
	}
	buffer := make([]byte, replySize)
	if flags&unix.NLM_F_DUMP != 0 {
		buffer = make([]byte, dumpSize)
	}
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("query sockets: %w", err)
		}
		over, err := parseDiag(buffer[:n], &found)
		if err != nil {
			return nil, err // a part of a dump would hide sockets
		}
		if over || flags&unix.NLM_F_DUMP == 0 {
			return found, nil
		}
	}
}

// parseDiag appends the sockets of a reply to found. It reports the end of a dump.
func parseDiag(reply []byte, found *[]diagSocket) (over bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(reply)
	if err != nil {
		return true, fmt.Errorf("query sockets: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Type == unix.NLMSG_DONE:
			return true, nil
		case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
			return true, fmt.Errorf("query sockets: %w", unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
		case len(m.Data) < inodeAt+4:
			return true, fmt.Errorf("query sockets: reply of type %d with %d bytes", m.Header.Type, len(m.Data))
		}
		addr, _ := netip.AddrFromSlice(m.Data[8 : 8+4])
		if m.Data[0] == unix.AF_INET6 {
			addr, _ = netip.AddrFromSlice(m.Data[8 : 8+16])
		}
		*found = append(*found, diagSocket{
			state: m.Data[1], inode: binary.NativeEndian.Uint32(m.Data[inodeAt:]), uid: binary.NativeEndian.Uint32(m.Data[uidAt:]),
			local: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(m.Data[4:])),
		})
	}
	return false, nil
}

// Offsets of idiag_uid and idiag_inode in struct inet_diag_msg (linux/inet_diag.h): after family, state and two more
// bytes come struct inet_diag_sockid, which begins with both ports and the local address, and 3 numbers.
const (
	uidAt   = 4 + 48 + 3*4
	inodeAt = uidAt + 4
)

// socketRequest is struct inet_diag_req_v2. A dump returns the sockets of this family with the local port of local and one
// of the states.
type socketRequest struct {
	local, remote netip.AddrPort
	states        uint32
}

// Values of socketRequest.states.
const (
	anyState  = ^uint32(0)
	listening = 1 << stateListen

	stateListen = 10 // TCP_LISTEN, include/net/tcp_states.h
)

var _ nl.NetlinkRequestData = socketRequest{}

// Len implements nl.NetlinkRequestData.
func (q socketRequest) Len() int { return 8 + 48 }

// Serialize implements nl.NetlinkRequestData.
func (q socketRequest) Serialize() []byte {
	b := make([]byte, q.Len())
	b[0], b[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if q.local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], q.states)
	id := b[8:] // struct inet_diag_sockid
	binary.BigEndian.PutUint16(id[0:], q.local.Port())
	binary.BigEndian.PutUint16(id[2:], q.remote.Port())
	copy(id[4:20], q.local.Addr().AsSlice())
	copy(id[20:36], q.remote.Addr().AsSlice())
	copy(id[40:48], "\xff\xff\xff\xff\xff\xff\xff\xff") // INET_DIAG_NOCOOKIE
	return b
}
