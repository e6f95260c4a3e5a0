package proctree

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// PortCheck reports whether a loopback port belongs to one start of a Space: to a socket on which a process of its tree
// listens. The port is a claim by the Space. Without the check, the Space could name a port of another program, and the
// host would send that program the requests of visitors with their headers.
//
// A check usually costs one query to the kernel, about 20 µs. The processes are searched once per socket and second: a
// socket leaves the tree only if a process of the tree gives it away. A PortCheck is safe for concurrent use.
type PortCheck struct {
	tree Tree

	mu   sync.Mutex
	last heldSocket
}

// heldSocket is the result of a search.
type heldSocket struct {
	socket Socket
	at     time.Time
	ours   bool
	holder Process
	fd     int
}

// Socket identifies a listening socket. Two sockets of one port that listen one after the other are different.
type Socket uint32

// NewPortCheck returns a PortCheck for the processes of a tree.
func NewPortCheck(t Tree) *PortCheck { return &PortCheck{tree: t} }

// ForeignPortError reports that another program listens at a port that a Space has named.
type ForeignPortError struct{ Port int }

func (e *ForeignPortError) Error() string {
	return fmt.Sprintf("port %d, which the Space has named as its own, belongs to another program: no request is sent there", e.Port)
}

// searchInterval limits the searches for one socket. A search also finds sockets that share the address of the first.
const searchInterval = time.Second

// Owner returns the socket that accepts connections to 127.0.0.1:port. Errors: *ForeignPortError if the socket is not
// held by the tree; an error that wraps ECONNREFUSED if no socket listens there.
func (c *PortCheck) Owner(port int) (Socket, error) {
	l, err := listenerAt(port)
	if err != nil {
		return 0, fmt.Errorf("find the process at port %d: %w", port, err)
	}
	if l.inode == 0 {
		return 0, fmt.Errorf("no process listens at port %d: %w", port, syscall.ECONNREFUSED)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if socket := Socket(l.inode); c.last.socket != socket || time.Since(c.last.at) > searchInterval {
		c.last = c.search(port, l)
	}
	if !c.last.ours {
		return 0, &ForeignPortError{port}
	}
	return c.last.socket, nil
}

// search finds the holder of the socket. Every socket that shares its address must be held by the tree too, because the
// kernel may select any of them.
func (c *PortCheck) search(port int, l listener) heldSocket {
	result := heldSocket{socket: Socket(l.inode), at: time.Now()}
	all, err := listenersAt(port)
	if err != nil || len(all) == 0 {
		return result
	}
	for _, one := range all {
		before := c.last
		if before.socket == Socket(one.inode) && before.ours && before.holder.is(before.fd, one.name()) && before.holder.Alive() {
			result.holder, result.fd = before.holder, before.fd
			continue
		}
		holder, fd, ok := c.tree.holder(one.name())
		if !ok || isForeign(one.uid) {
			return result
		}
		if one == l {
			result.holder, result.fd = holder, fd
		}
	}
	result.ours = slices.Contains(all, l)
	return result
}

// holder returns the process of the tree that has opened the file with that name in /proc, and its descriptor. The runner
// is searched first: it usually serves the app.
func (t Tree) holder(name string) (holder Process, fd int, ok bool) {
	if fd, ok := t.Root.find(name); ok {
		return t.Root, fd, true
	}
	members, _ := t.members() // an unreadable process holds nothing
	for _, member := range members {
		if fd, ok := member.find(name); ok {
			return member, fd, true
		}
	}
	return Process{}, 0, false
}
