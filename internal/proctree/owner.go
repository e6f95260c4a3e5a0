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

// SpaceAt returns the Space of which a process, its runner included, holds the client's end of a TCP connection on
// this machine; "" if none does. It may take milliseconds: ask once per connection.
//
// The kernel tells the client's socket by its two addresses; whose it is, only the descriptors of processes tell. One
// that has left its tree and shed its marker is nobody's.
func (p *Processes) SpaceAt(client, server netip.AddrPort) string {
	inode, uid, err := socketAt(client, server)
	if err != nil {
		p.blind.Do(func() {
			if p.Logger != nil {
				p.Logger.Warn("whose a local connection is cannot be told: a Space's own calls count as the local visitor's", zap.Error(err))
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

// isForeign says whether a socket is another user's. A Space is of our user, unless we are root and it has shed that.
func isForeign(uid uint32) bool { return os.Geteuid() != 0 && int(uid) != os.Geteuid() }

// holder looks at the trees first, and then at everybody, the youngest first: whoever has the socket has left a tree
// and bears its marker still, or is a stranger.
func (p *Processes) holder(socket string) (space string, other externalProc) {
	p.mu.Lock()
	trees := maps.Clone(p.trees)
	p.mu.Unlock()
	all, _ := allStats() // whose process cannot be told is nobody's
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
		for space, t := range trees {
			if hasMarker(s.PID, t.Marker) {
				return space, externalProc{}
			}
		}
		return "", externalProc{s.Process, fd}
	}
	return "", externalProc{}
}

// find returns the descriptor with which a process has the file open that /proc calls by that name.
func (p Process) find(name string) (fd int, ok bool) {
	folder, err := os.Open(p.folder())
	if err != nil || !p.Alive() {
		return 0, false
	}
	defer folder.Close()
	entries, _ := folder.Readdirnames(-1) // as many as it gives
	for _, entry := range slices.Backward(entries) {
		if fd, err := strconv.Atoi(entry); err == nil && p.is(fd, name) {
			return fd, true
		}
	}
	return 0, false
}

func (p Process) holds(name string) bool {
	_, ok := p.find(name)
	return ok
}

func (p Process) is(fd int, name string) bool {
	link, err := os.Readlink(p.folder() + strconv.Itoa(fd))
	return err == nil && link == name
}

func (p Process) folder() string { return fmt.Sprintf("/proc/%d/fd/", p.PID) }

// externalProc is a process of no Space, and the descriptor at which it had a connection.
type externalProc struct {
	Process
	fd int
}

// nearby is how far from there its next connection is looked for first: one that keeps thousands open has the next
// mostly beside the last.
const nearby = 32

func (s externalProc) near(socket string) (fd int, ok bool) {
	if !s.Alive() {
		return 0, false
	}
	for far := range nearby {
		for _, fd := range []int{s.fd + far, s.fd - far} {
			if fd >= 0 && s.is(fd, socket) {
				return fd, true
			}
		}
	}
	return 0, false
}

// externalProcs are those that held connections lately, the last one first. gradio_client makes a connection for each
// request: to look at its process first spares looking at all.
type externalProcs struct {
	mu     sync.Mutex
	recent []externalProc
}

// maxExternalProcs bounds how many are looked at in vain.
const maxExternalProcs = 8

func (s *externalProcs) add(p externalProc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = slices.DeleteFunc(s.recent, func(old externalProc) bool { return old.Process == p.Process })
	s.recent = slices.Insert(s.recent, 0, p)
	s.recent = s.recent[:min(len(s.recent), maxExternalProcs)]
}

// hold looks where each had its last connection, and then at all that they have.
func (s *externalProcs) hold(socket string) bool {
	s.mu.Lock()
	recent := slices.Clone(s.recent)
	s.mu.Unlock()
	for _, look := range []func(externalProc) (int, bool){
		func(p externalProc) (int, bool) { return p.near(socket) },
		func(p externalProc) (int, bool) { return p.find(socket) },
	} {
		for _, p := range recent {
			if fd, ok := look(p); ok {
				s.add(externalProc{p.Process, fd})
				return true
			}
		}
	}
	return false
}

// socketAt asks the kernel for the socket with these two ends (sock_diag(7), exactly one and no dump), and whose it is;
// inode 0: there is none.
func socketAt(local, remote netip.AddrPort) (inode, uid uint32, err error) {
	r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	r.AddData(socketQuestion{local, remote})
	answers, err := r.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask for a socket by its addresses: %w", err)
	}
	if len(answers) != 1 || len(answers[0]) < inodeAt+4 {
		return 0, 0, fmt.Errorf("ask for a socket by its addresses: %d answers that are not understood", len(answers))
	}
	return binary.NativeEndian.Uint32(answers[0][inodeAt:]), binary.NativeEndian.Uint32(answers[0][uidAt:]), nil
}

// Where idiag_uid and idiag_inode are in struct inet_diag_msg (linux/inet_diag.h): after 4 bytes, inet_diag_sockid and
// 3 numbers.
const (
	uidAt   = 4 + 48 + 3*4
	inodeAt = uidAt + 4
)

// socketQuestion is struct inet_diag_req_v2.
type socketQuestion struct{ local, remote netip.AddrPort }

var _ nl.NetlinkRequestData = socketQuestion{}

// Len implements nl.NetlinkRequestData.
func (q socketQuestion) Len() int { return 8 + 48 }

// Serialize implements nl.NetlinkRequestData.
func (q socketQuestion) Serialize() []byte {
	b := make([]byte, q.Len())
	b[0], b[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if q.local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // in any state
	id := b[8:]                                      // struct inet_diag_sockid
	binary.BigEndian.PutUint16(id[0:], q.local.Port())
	binary.BigEndian.PutUint16(id[2:], q.remote.Port())
	copy(id[4:20], q.local.Addr().AsSlice())
	copy(id[20:36], q.remote.Addr().AsSlice())
	copy(id[40:48], "\xff\xff\xff\xff\xff\xff\xff\xff") // INET_DIAG_NOCOOKIE
	return b
}
