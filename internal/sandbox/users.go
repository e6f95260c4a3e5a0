package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the host's part of a start with Spec.User. Init then runs as a user that cannot walk to the Space's
// folders, so the host opens every mount as a detached tree, and init inherits the descriptors. The files of a tree
// keep their owner on disk: an idmapped mount shows that owner's files as the Space's own (mount_setattr(2),
// "ID-mapped mounts").

// openMount is a Mount with the descriptors of the trees that the host has opened for it. 0: init opens the path.
type openMount struct {
	Mount
	SourceTree int // the tree at Source
	LayerTree  int // of an Overlay: the tree at the folder that contains Upper and Work
}

// openMounts returns the mounts of a Spec. Descriptors of trees are numbered from treesFD, in the order of files. The
// caller closes the files.
func openMounts(spec Spec) (all []openMount, files []*os.File, err error) {
	users := userMaps{user: spec.User, files: map[owner]*os.File{}}
	defer users.close()
	add := func(tree *os.File) int {
		files = append(files, tree)
		return treesFD + len(files) - 1
	}
	for _, m := range spec.Mounts {
		open := openMount{Mount: m}
		if spec.User != 0 {
			if err = open.openTrees(&users, add); err != nil {
				closeAll(files)
				return nil, nil, fmt.Errorf("open %s %s for uid %d: %w", m.Kind, m.Source, spec.User, err)
			}
		}
		all = append(all, open)
	}
	return all, files, nil
}

func (m *openMount) openTrees(users *userMaps, add func(*os.File) int) error {
	var tree *os.File
	var err error
	switch m.Kind {
	case Empty, Link, Text:
		return nil
	case Overlay:
		// An overlay does not contain the mounts below its folders.
		tree, err = users.open(m.Source, 0, sealed, ifPossible)
	case ReadWrite:
		tree, err = users.open(m.Source, unix.AT_RECURSIVE, untrusted, required)
	case Device:
		tree, err = users.open(m.Source, 0, unix.MOUNT_ATTR_NOSUID, never)
	default:
		mapping := never
		if m.Owned {
			mapping = ifPossible
		}
		tree, err = users.open(m.Source, unix.AT_RECURSIVE, sealed, mapping)
	}
	if err != nil {
		return err
	}
	m.SourceTree = add(tree)
	if m.Kind != Overlay {
		return nil
	}
	if filepath.Dir(m.Upper) != filepath.Dir(m.Work) {
		return fmt.Errorf("the layer %s and its work folder %s are not in one folder", m.Upper, m.Work)
	}
	if tree, err = users.open(filepath.Dir(m.Upper), 0, untrusted, required); err != nil {
		return fmt.Errorf("open its layer: %w", err)
	}
	m.LayerTree = add(tree)
	return nil
}

// mapping says whether the owner's files of a tree belong to the Space's user.
type mapping int

const (
	never      mapping = iota
	ifPossible         // without it, the Space has the rights of other users of the machine
	required
)

// owner is a user and a group on disk.
type owner struct{ uid, gid uint32 }

// userMaps holds the user namespaces that describe the maps of idmapped mounts, by the owner on disk.
type userMaps struct {
	user  uint32
	files map[owner]*os.File
}

func (u *userMaps) close() {
	for _, f := range u.files {
		f.Close()
	}
}

// open returns the tree at a path as a detached mount. Mounts of the sandbox in it do not appear on the machine, nor the
// reverse: a copy of a shared mount would be a member of its peer group.
func (u *userMaps) open(path string, recursive uint, attributes uint64, m mapping) (*os.File, error) {
	tree, err := openTree(path, recursive, &unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return nil, err
	}
	if m == never {
		return tree, nil
	}
	if err := u.mapOwner(int(tree.Fd()), recursive); err != nil && (m == required || !isUnmappable(err)) {
		tree.Close()
		return nil, fmt.Errorf("map its owner: %w", err)
	}
	return tree, nil
}

// isUnmappable reports that a file system does not support idmapped mounts, or that a mount is idmapped already.
func isUnmappable(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM)
}

// mapOwner makes the files of the tree's owner those of the Space's user.
func (u *userMaps) mapOwner(tree int, recursive uint) error {
	var info unix.Stat_t
	if err := unix.Fstat(tree, &info); err != nil {
		return err
	}
	users, err := u.namespace(owner{info.Uid, info.Gid})
	if err != nil {
		return err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|recursive, attr)
}

// namespace returns a user namespace that maps an owner on disk to the Space's user.
func (u *userMaps) namespace(from owner) (*os.File, error) {
	if f := u.files[from]; f != nil {
		return f, nil
	}
	// No thread of a multi-threaded process may create a user namespace for itself. The process only holds it.
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.Env = []string{mapName}, []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(from.uid), HostID: int(u.user), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(from.gid), HostID: int(u.user), Size: 1}},
	}
	alive, err := cmd.StdinPipe() // the process exits with the host
	if err != nil {
		return nil, err
	}
	defer alive.Close()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	_ = cmd.Process.Kill() // not reaped yet
	_ = cmd.Wait()         // reports our signal
	if err == nil {
		u.files[from] = f
	}
	return f, err
}

// mapName is the first word of the command line of the process that holds a user namespace.
const mapName = "spacehost: map of users"

// runMap waits until the host has opened the namespace of this process.
func runMap() {
	_, _ = os.Stdin.Read(make([]byte, 1)) // the end of the pipe
	os.Exit(0)
}

// userCredential is the user of init and of everything below it, as the user namespace of the sandbox names it. Its
// list of supplementary groups is empty.
func userCredential() *syscall.Credential { return &syscall.Credential{Uid: InsideID, Gid: InsideID} }
