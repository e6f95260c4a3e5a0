package proctree

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Listening returns the processes with a listening TCP socket of that port, at any address of this machine. Processes of other users
// are left out, unless this process may read their descriptors.
func Listening(port int) (pids []int) {
	var names []string
	all, _ := procListeners() // without /proc no process is found
	for _, l := range all {
		if int(l.addr.Port()) == port {
			names = append(names, l.name())
		}
	}
	if len(names) == 0 {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && slices.Contains(names, target) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link)))); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
