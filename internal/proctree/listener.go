package proctree

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listener is a listening TCP socket of this machine.
type listener struct {
	inode, uid uint32
	addr       netip.AddrPort
}

// name is the name of the socket in /proc/<pid>/fd.
func (l listener) name() string { return fmt.Sprintf("socket:[%d]", l.inode) }

// listenersAt returns the sockets that may accept a connection to 127.0.0.1:port. There is usually one. Sockets of one
// user can share an address (SO_REUSEPORT); the kernel then chooses one for each connection.
func listenersAt(port int) ([]listener, error) {
	first, err := listenerAt(port)
	if err != nil || first.inode == 0 {
		return nil, err
	}
	sharing, err := listeningOn(first.addr)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(sharing, first) { // closed between the two queries
		return nil, nil
	}
	return sharing, nil
}

// listenerAt returns the socket that the kernel selects for a connection to 127.0.0.1:port: a socket of that address
// before one of all addresses. The inode is 0 if no socket listens there. The query costs about 20 µs.
func listenerAt(port int) (listener, error) {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	found := listenersIn(0, socketRequest{at, netip.AddrPortFrom(netip.IPv4Unspecified(), 0), listening})
	if len(found) == 0 {
		return procListenerAt(at)
	}
	return found[0], nil
}

// listeningOn returns all sockets that listen at exactly that address, which sockets of both families may have.
func listeningOn(addr netip.AddrPort) (found []listener, err error) {
	for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		local := netip.AddrPortFrom(family, addr.Port())
		found = append(found, listenersIn(unix.NLM_F_DUMP, socketRequest{local, netip.AddrPortFrom(family, 0), listening})...)
	}
	if len(found) == 0 {
		found, err = procListeners()
	}
	return slices.DeleteFunc(found, func(l listener) bool {
		return l.addr.Port() != addr.Port() || l.addr.Addr().Unmap() != addr.Addr().Unmap()
	}), err
}

// listenersIn returns the listening sockets of a request to the kernel. It finds none on a machine without sock_diag, which
// the kernel does not tell apart from a port without a listener.
func listenersIn(flags int, request socketRequest) (found []listener) {
	sockets, _ := diagnose(flags, request) // no socket is found after an error
	for _, s := range sockets {
		if s.state == stateListen {
			found = append(found, listener{s.inode, s.uid, s.local})
		}
	}
	return found
}

// procListenerAt is listenerAt without sock_diag.
func procListenerAt(at netip.AddrPort) (listener, error) {
	all, err := procListeners()
	for _, addr := range []netip.Addr{at.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		for _, l := range all {
			if l.addr == netip.AddrPortFrom(addr, at.Port()) {
				return l, nil
			}
		}
	}
	return listener{}, err
}

// procListeners reads the listening sockets from /proc.
func procListeners() (found []listener, err error) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, unread := os.ReadFile(table)
		if unread != nil && !(table == "/proc/net/tcp6" && errors.Is(unread, os.ErrNotExist)) {
			err = errors.Join(err, fmt.Errorf("list listening sockets: %w", unread))
		}
		for line := range bytes.Lines(text) {
			if l, ok := parseListener(string(line)); ok {
				found = append(found, l)
			}
		}
	}
	return found, err
}

// parseListener reads a line of /proc/net/tcp (proc_net_tcp.rst): number, local address, remote address, state, three
// fields, uid, timeout, inode. An address is written as words of 32 bits in the byte order of the machine.
func parseListener(line string) (l listener, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != fmt.Sprintf("%02X", stateListen) {
		return listener{}, false
	}
	text, portText, _ := strings.Cut(fields[1], ":")
	words, err := hex.DecodeString(text)
	if err != nil || len(words)%4 != 0 {
		return listener{}, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	addr, isAddr := netip.AddrFromSlice(words)
	port, badPort := strconv.ParseUint(portText, 16, 16)
	uid, badUID := strconv.ParseUint(fields[7], 10, 32)
	inode, badInode := strconv.ParseUint(fields[9], 10, 32)
	return listener{uint32(inode), uint32(uid), netip.AddrPortFrom(addr, uint16(port))}, isAddr && errors.Join(badPort, badUID, badInode) == nil
}
