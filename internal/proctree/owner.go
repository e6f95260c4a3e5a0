package proctree

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"

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
	if inode == 0 || isForeign(uid) {
		return ""
	}
	for _, search := range []func(recentProc, string) (int, bool){recentProc.near, recentProc.find} {
		for _, recent := range []*recentProcs{&p.externalProcs, &p.spaceProcs} {
			if known, ok := recent.holder(socket, search); ok {
				return known.space
			}
		}
	}
	found := p.holder(socket)
	switch {
	case found == recentProc{}:
	case found.space == "":
		p.externalProcs.add(found)
	default:
		p.spaceProcs.add(found)
	}
	return found.space
}

// isForeign reports whether a socket belongs to another user. A Space runs as the user of this process. Only if this
// process is root can a Space have another user.
func isForeign(uid uint32) bool { return os.Geteuid() != 0 && int(uid) != os.Geteuid() }

// holder searches the trees first. Then it searches all other processes, the youngest first. A process outside the
// trees that owns the socket either has left the tree of a Space, or is external.
func (p *Processes) holder(socket string) recentProc {
	trees := p.all()
	all, _ := allStats() // an unreadable process belongs to no Space
	known := map[int]bool{}
	for _, t := range trees {
		if !t.Root.Alive() {
			continue
		}
		for _, member := range append(below(t.Root.PID, all), t.Root) {
			known[member.PID] = true
			if fd, holds := member.find(socket); holds {
				return recentProc{member, fd, t.space}
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
			return recentProc{s.Process, fd, space}
		}
		return recentProc{s.Process, fd, ""}
	}
	return recentProc{}
}

// leftTree returns the Space of a process that does not descend from its runner, Stray if it cannot be attributed, and
// "" for an external process.
func (p *Processes) leftTree(pid int, trees []spaceTree) string {
	for _, t := range trees {
		if hasMarker(pid, t.Marker) || t.Cgroup != "" && isWithin(t.Cgroup, pid) {
			return t.space
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

// is reports whether a descriptor is the file with that name.
func (p Process) is(fd int, name string) bool {
	link, err := os.Readlink(p.folder() + strconv.Itoa(fd))
	return err == nil && link == name
}

func (p Process) folder() string { return fmt.Sprintf("/proc/%d/fd/", p.PID) }

// recentProc is a process with a connection to this host: the descriptor of the latest one, and the Space of the process,
// "" for a process outside all Spaces.
type recentProc struct {
	Process
	fd    int
	space string
}

// nearby is the distance from the latest descriptor that is searched first. A process with thousands of open
// connections usually gets its next descriptor close to the latest.
const nearby = 32

// near searches the descriptors around the latest one.
func (s recentProc) near(socket string) (fd int, ok bool) {
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

// recentProcs is a cache of processes with recent connections, the latest first. gradio_client opens a connection for each
// request. Searching its process first avoids a scan of all processes. Processes of Spaces have a cache of their own, so
// that a Space with many processes cannot slow down the lookups for others.
type recentProcs struct {
	mu     sync.Mutex
	recent []recentProc
}

// maxRecentProcs bounds the number of processes that a cache miss searches.
const maxRecentProcs = 8

// add puts a process first.
func (s *recentProcs) add(p recentProc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent = slices.DeleteFunc(s.recent, func(old recentProc) bool { return old.Process == p.Process })
	s.recent = slices.Insert(s.recent, 0, p)
	s.recent = s.recent[:min(len(s.recent), maxRecentProcs)]
}

// holder returns the process in which search finds the socket.
func (s *recentProcs) holder(socket string, search func(recentProc, string) (fd int, ok bool)) (found recentProc, ok bool) {
	s.mu.Lock()
	recent := slices.Clone(s.recent)
	s.mu.Unlock()
	for _, p := range recent {
		if p.fd, ok = search(p, socket); ok {
			s.add(p)
			return p, true
		}
	}
	return recentProc{}, false
}

// socketAt queries the kernel for the socket with these two ends and for its user. Inode 0 means that there is no such
// socket.
func socketAt(local, remote netip.AddrPort) (inode, uid uint32, err error) {
	found, err := diagnose(0, socketRequest{local, remote, anyState})
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if len(found) != 1 {
		return 0, 0, fmt.Errorf("query socket by its addresses: got %d sockets", len(found))
	}
	return found[0].inode, found[0].uid, nil
}
