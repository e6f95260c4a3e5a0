package proctree

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Node identifies a device node.
type Node struct {
	device     uint64 // st_rdev
	fileSystem uint64 // st_dev of the file
	inode      uint64 // of the file
}

// NodeAt returns the character device at a path.
func NodeAt(path string) (Node, error) {
	var info unix.Stat_t
	if err := unix.Stat(path, &info); err != nil {
		return Node{}, fmt.Errorf("find device node %s: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFCHR {
		return Node{}, fmt.Errorf("%s is no device node", path)
	}
	return Node{info.Rdev, info.Dev, info.Ino}, nil
}

// Holders returns the processes of a Space, the runner included, that use each of the nodes: they have it open, or have
// memory of it. Both go on after the node has disappeared from the Space's view.
func (p *Processes) Holders(space string, nodes []Node) map[Node][]int {
	found := map[Node][]int{}
	for _, t := range p.all() {
		if t.space != space || t.isStandby || t.Root.PID == 0 {
			continue
		}
		all, _ := t.members() // a process that cannot be read is not found
		if t.Runner.PID == 0 {
			all = append(all, t.Root)
		} // otherwise the root is process 1 of the sandbox, which has every node
		for _, process := range all {
			for _, node := range heldBy(process.PID, nodes) {
				found[node] = append(found[node], process.PID)
			}
		}
	}
	return found
}

func heldBy(pid int, nodes []Node) (held []Node) {
	add := func(is func(Node) bool) {
		if at := slices.IndexFunc(nodes, is); at >= 0 && !slices.Contains(held, nodes[at]) {
			held = append(held, nodes[at])
		}
	}
	for s := range openFiles(pid) {
		if s.Mode&syscall.S_IFMT == syscall.S_IFCHR {
			add(func(n Node) bool { return n.device == s.Rdev })
		}
	}
	maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)) // an exited process has none
	for line := range strings.Lines(string(maps)) {
		var addresses, rights, offset string
		var major, minor uint32
		var inode uint64
		if _, err := fmt.Sscanf(line, "%s %s %s %x:%x %d", &addresses, &rights, &offset, &major, &minor, &inode); err == nil && inode != 0 {
			add(func(n Node) bool { return n.inode == inode && n.fileSystem == unix.Mkdev(major, minor) })
		}
	}
	return held
}
