package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// nodesFolder contains the device nodes on demand, below the root. Another mount covers it, so that no process of the
// Space can reach it by a path. Init has it open.
const nodesFolder = ".nodes"

// nodes are the device nodes that the host shows and hides while the Space runs. Init alone uses it, from one goroutine.
// That goroutine runs on a thread with the rights to mount, unlike the thread that becomes the interpreter; no process of
// the Space may trace init.
type nodes struct {
	folder *os.File            // nil: there are none
	kept   []string            // targets; the node at an index is the file of that name in the folder
	shown  map[string]*os.File // by target: the mount
}

// open keeps the mounts that are on demand.
func (n *nodes) open(folder string, mounts []openMount) (err error) {
	var onDemand []openMount
	for _, m := range mounts {
		if m.Kind == Device && m.OnDemand {
			onDemand = append(onDemand, m)
		}
	}
	if len(onDemand) == 0 {
		return nil
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=64k"); err != nil {
		return fmt.Errorf("mount the nodes on demand: %w", err)
	}
	for i, m := range onDemand {
		n.kept = append(n.kept, m.Target)
		m.Target = strconv.Itoa(i)
		if err := m.mount(folder); err != nil {
			return fmt.Errorf("mount device %s: %w", m.Source, err)
		}
	}
	n.shown = map[string]*os.File{}
	if n.folder, err = os.Open(folder); err != nil {
		return err
	}
	return openMount{Mount: Mount{Kind: Empty, Target: nodesFolder}}.mount(filepath.Dir(folder))
}

// show makes these targets visible and hides the others.
func (n *nodes) show(targets []string) error {
	for target, tree := range n.shown {
		if slices.Contains(targets, target) {
			continue
		}
		if err := hide(tree, target); err != nil {
			return err
		}
		delete(n.shown, target)
	}
	for _, target := range targets {
		if n.shown[target] != nil {
			continue
		}
		tree, err := n.attach(target)
		if err != nil {
			return fmt.Errorf("show %s: %w", target, err)
		}
		n.shown[target] = tree
	}
	return nil
}

// attach mounts a copy of a node at its target. The returned descriptor identifies that mount.
func (n *nodes) attach(target string) (*os.File, error) {
	at := slices.Index(n.kept, target)
	if at < 0 {
		return nil, errors.New("it is no device node on demand")
	}
	fd, err := unix.OpenTree(int(n.folder.Fd()), strconv.Itoa(at), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open its node: %w", err)
	}
	tree := os.NewFile(uintptr(fd), target)
	if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = attach(fd, target)
	}
	if err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// hide unmounts a node, wherever it is now: the Space may have renamed a folder above it. It removes the file on which the
// node was mounted.
func hide(tree *os.File, target string) error {
	if err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", tree.Fd()), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("hide %s: %w", target, err)
	}
	tree.Close()
	_ = os.Remove(target) // an empty file that is left harms nobody
	return nil
}
