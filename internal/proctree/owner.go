package proctree

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// SpaceAt returns the Space that has a process with the client end of a TCP connection on this machine; "" if no Space
// does. The runner counts as a process of its Space. A call can take milliseconds: call it once per connection.
//
// The kernel finds the client's socket by its two addresses. Only the file descriptors in /proc show which process
// owns the socket. A process that has left its tree and removed its marker is found by its cgroup. Without cgroups the
// result for such a process is Stray.
func (p *Processes) SpaceAt(client, server netip.AddrPort) string {
	inode, uid, err := socketAt(client, server)
	if err != nil {
		p.warnOnce.Do(func() {
			if p.Logger != nil {
				p.Logger.Warn("owner of local connections unknown, calls by Spaces count as the local visitor's", zap.Error(err))
			}
		})
		return ""
	}
	socket := fmt.Sprintf("socket:[%d]", inode)
	if inode == 0 || isForeign(uid) || p.externalProcs.hold(socket) {
		return ""
	}
	space, other := p.holder(socket)
	if other != (externalProc{}) {
		p.externalProcs.add(other)
	}
	return space
}

// isForeign reports whether a socket belongs to another user. A Space runs as the user of this process. Only if this
// process is root can a Space have another user.
func isForeign(uid uint32) bool { return os.Geteuid() != 0 && int(uid) != os.Geteuid() }

// holder searches the trees first. Then it searches all other processes, the youngest first. A process outside the
// trees that owns the socket either has left the tree of a Space, or is external.
func (p *Processes) holder(socket string) (space string, other externalProc) {
	p.mu.Lock()
	trees := maps.Clone(p.trees)
	p.mu.Unlock()
	all, _ := allStats() // an unreadable process belongs to no Space
	known := map[int]bool{}
	for space, t := range trees {
		if !t.Root.Alive() {
			continue
		}
		for _, member := range append(below(t.Root.PID, all), t.Root) {
			if known[member.PID] = true; member.holds(socket) {
				return space, externalProc{}
			}
		}
	}
	youngest := slices.SortedFunc(slices.Values(all), func(a, b Stat) int { return cmp.Compare(b.Start, a.Start) })
	for _, s := range youngest {
		if known[s.PID] {
			continue
		}
		fd, holds := s.find(socket)
		if !holds {
			continue
		}
		if space := p.leftTree(s.PID, trees); space != "" {
			return space, externalProc{}
		}
		return "", externalProc{s.Process, fd}
	}
	return "", externalProc{}
}

// leftTree returns the Space of a process that does not descend from its runner, Stray if it cannot be attributed, and
// "" for an external process.
func (p *Processes) leftTree(pid int, trees map[string]Tree) string {
	for space, t := range trees {
		if hasMarker(pid, t.Marker) || t.Cgroup != "" && isWithin(t.Cgroup, pid) {
			return space
		}
	}
	if p.Untrusted(pid) {
		return Stray
	}
	return ""
}

// find returns the descriptor under which a process has opened the file with that name in /proc.
func (p Process) find(name string) (fd int, ok bool) {
	folder, err := os.Open(p.folder())
	if err != nil || !p.Alive() {
		return 0, false
	}
	defer folder.Close()
	entries, _ := folder.Readdirnames(-1) // a partial list is enough
	for _, entry := range slices.Backward(entries) {
		if fd, err := strconv.Atoi(entry); err == nil && p.is(fd, name) {
			return fd, true
		}
	}
	return 0, false
}

// holds reports whether a process has opened the file with that name in /proc.
func (p Process) holds(name string) bool {
	_, ok := p.find(name)
	return ok
}

// is reports whether a descriptor is the file with that name.
func (p Process) is(fd int, name string) bool {
	link, err := os.Readlink(p.folder() + strconv.Itoa(fd))
	return err == nil && link == name
}

func (p Process) folder() string { return fmt.Sprintf("/proc/%d/fd/", p.PID) }

// externalProc is a process outside all Spaces, with the descriptor of its latest connection.
type externalProc struct {
	Process
	fd int
}

// nearby is the distance from the latest descriptor that is searched first. A process with thousands of open
// connections usually gets its next descriptor close to the latest.
const nearby = 32

// near searches the descriptors around the latest one.
func (s externalProc) near(socket string) (fd int, ok bool) {
	if !s.Alive() {
		return 0, false
	}
	for distance := range nearby {
		for _, fd := range []int{s.fd + distance, s.fd - distance} {
			if fd >= 0 && s.is(fd, socket) {
				return fd, true
			}
		}
	}
	return 0, false
}

// externalProcs is a cache of external processes with recent connections, the latest first. gradio_client opens a
// connection for each request. Searching its process first avoids a scan of all processes.
type externalProcs struct {
	mu     sync.Mutex
	recent []externalProc
}

// maxExternalProcs bounds the number of processes that a cache miss searches.
const maxExternalProcs = 8

// add puts a process first.
func (s *externalProcs) add(p externalProc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = slices.DeleteFunc(s.recent, func(old externalProc) bool { return old.Process == p.Process })
	s.recent = slices.Insert(s.recent, 0, p)
	s.recent = s.recent[:min(len(s.recent), maxExternalProcs)]
}

// hold searches first near the latest descriptor of each process, then all its descriptors.
func (s *externalProcs) hold(socket string) bool {
	s.mu.Lock()
	recent := slices.Clone(s.recent)
	s.mu.Unlock()
	for _, search := range []func(externalProc) (int, bool){
		func(p externalProc) (int, bool) { return p.near(socket) },
		func(p externalProc) (int, bool) { return p.find(socket) },
	} {
		for _, p := range recent {
			if fd, ok := search(p); ok {
				s.add(externalProc{p.Process, fd})
				return true
			}
		}
	}
	return false
}

// socketAt queries the kernel for the socket with these two ends and for its user (sock_diag(7), an exact request
// without a dump). Inode 0 means that there is no such socket.
func socketAt(local, remote netip.AddrPort) (inode, uid uint32, err error) {
	r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	r.AddData(socketRequest{local, remote})
	replies, err := r.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("query socket by its addresses: %w", err)
	}
	if len(replies) != 1 || len(replies[0]) < inodeAt+4 {
		return 0, 0, fmt.Errorf("query socket by its addresses: unexpected reply of %d messages", len(replies))
	}
	return binary.NativeEndian.Uint32(replies[0][inodeAt:]), binary.NativeEndian.Uint32(replies[0][uidAt:]), nil
}

// Offsets of idiag_uid and idiag_inode in struct inet_diag_msg (linux/inet_diag.h): after 4 bytes, inet_diag_sockid
// and 3 numbers.
const (
	uidAt   = 4 + 48 + 3*4
	inodeAt = uidAt + 4
)

// socketRequest is struct inet_diag_req_v2.
type socketRequest struct{ local, remote netip.AddrPort }

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
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // any state
	id := b[8:]                                      // struct inet_diag_sockid
	binary.BigEndian.PutUint16(id[0:], q.local.Port())
	binary.BigEndian.PutUint16(id[2:], q.remote.Port())
	copy(id[4:20], q.local.Addr().AsSlice())
	copy(id[20:36], q.remote.Addr().AsSlice())
	copy(id[40:48], "\xff\xff\xff\xff\xff\xff\xff\xff") // INET_DIAG_NOCOOKIE
	return b
}
