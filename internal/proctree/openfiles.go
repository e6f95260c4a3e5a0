package proctree

import (
	"fmt"
	"iter"
	"os"
	"syscall"
)

// openFiles returns the status of each file that a process has open. There are none for a process that has exited or may not
// be read.
func openFiles(pid int) iter.Seq[*syscall.Stat_t] {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(folder)
	return func(yield func(*syscall.Stat_t) bool) {
		for _, entry := range entries {
			info, err := os.Stat(folder + "/" + entry.Name()) // the kernel resolves it to the open file, whatever the path
			if err == nil && !yield(info.Sys().(*syscall.Stat_t)) {
				return
			}
		}
	}
}

// DeletedBytes returns the bytes on a disk of the files that processes of the tree keep open and that have no name any
// more, each file once. Such files are in no folder. device is the number of the disk, as stat reports it. Deleted files of
// an overlay have another number and are not found.
func (t Tree) DeletedBytes(device uint64) (total int64) {
	all, _ := t.members() // a process that cannot be read is not counted
	seen := map[uint64]bool{}
	for _, p := range append(all, t.Root) {
		for s := range openFiles(p.PID) {
			if s.Mode&syscall.S_IFMT == syscall.S_IFREG && s.Nlink == 0 && s.Dev == device && !seen[s.Ino] {
				seen[s.Ino] = true
				total += s.Blocks * 512
			}
		}
	}
	return total
}
