package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openView replaces the root by an empty one that contains only the mounts of the Spec, /proc and /dev.
func (p *initProcess) openView() error {
	spec := p.spec
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", spec.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=16m"); err != nil {
		return fmt.Errorf("mount the root at %s: %w", spec.Root, err)
	}
	for _, m := range inOrder(spec.Mounts) {
		if err := m.mount(spec.Root); err != nil {
			return fmt.Errorf("mount %s %s at %s: %w", m.Kind, m.Source, m.Target, err)
		}
	}
	if err := mountProc(filepath.Join(spec.Root, "proc")); err != nil {
		return err
	}
	if err := mountDev(filepath.Join(spec.Root, "dev"), spec.Mounts); err != nil {
		return err
	}
	if err := p.nodes.open(filepath.Join(spec.Root, nodesFolder), spec.Mounts); err != nil {
		return err
	}
	return enterRoot(spec.Root)
}

// inOrder sorts mounts so that a parent comes before what is mounted below it. Devices are mounted by mountDev.
func inOrder(mounts []openMount) []openMount {
	sorted := slices.DeleteFunc(slices.Clone(mounts), func(m openMount) bool { return m.Kind == Device })
	depth := func(m openMount) int { return strings.Count(filepath.Clean(m.Target), "/") }
	slices.SortStableFunc(sorted, func(a, b openMount) int { return depth(a) - depth(b) })
	return sorted
}

// enterRoot makes root the read-only root of this process and detaches the former one.
func enterRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the former root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return os.Chdir("/")
}

const (
	untrusted = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	sealed    = untrusted | unix.MOUNT_ATTR_RDONLY
)

// mount mounts m at its target below root.
func (m openMount) mount(root string) error {
	target := filepath.Join(root, m.Target)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if m.SourceTree != 0 && m.Kind != Overlay {
		return attach(m.SourceTree, target) // the host has set its attributes
	}
	switch m.Kind {
	case ReadOnly:
		return bind(m.Source, target, sealed)
	case ReadWrite:
		return bind(m.Source, target, untrusted)
	case Device:
		return bind(m.Source, target, unix.MOUNT_ATTR_NOSUID)
	case Overlay:
		return m.overlayAt(root, target)
	case Empty:
		return unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "mode=0555,size=4k")
	case Link:
		return os.Symlink(m.Source, target)
	case Text:
		return os.WriteFile(target, []byte(m.Text), 0o644)
	}
	return fmt.Errorf("unknown kind of mount %q", m.Kind)
}

// bind mounts source at target, with all mounts below it.
func bind(source, target string, attributes uint64) error {
	tree, err := openTree(source, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes})
	if err != nil {
		return err
	}
	defer tree.Close()
	return attach(int(tree.Fd()), target)
}

// openTree returns a copy of the mount at a path, with these attributes, as a detached mount. recursive is AT_RECURSIVE, which
// includes all mounts below it, or 0.
func openTree(path string, recursive uint, attr *unix.MountAttr) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	tree := os.NewFile(uintptr(fd), path)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|recursive, attr); err != nil {
		tree.Close()
		return nil, fmt.Errorf("set attributes: %w", err)
	}
	return tree, nil
}

// attach moves a detached mount to target, which it creates as a folder or a file.
func attach(tree int, target string) error {
	var info unix.Stat_t
	if err := unix.Fstat(tree, &info); err != nil {
		return err
	}
	if err := makeTarget(target, info.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func makeTarget(target string, folder bool) error {
	if _, err := os.Stat(target); err == nil {
		return nil // the kernel refuses a file on a folder
	}
	if folder {
		return os.MkdirAll(target, 0o755)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// overlayAt mounts an Overlay. The kernel takes its folders by path, so trees of the host are attached meanwhile. The
// overlay has copies of them.
func (m openMount) overlayAt(root, target string) error {
	if m.SourceTree == 0 {
		return m.overlay(target)
	}
	lower, layer := filepath.Join(root, ".lower"), filepath.Join(root, ".layer")
	for path, tree := range map[string]int{lower: m.SourceTree, layer: m.LayerTree} {
		if err := attach(tree, path); err != nil {
			return err
		}
	}
	m.Source, m.Upper, m.Work = lower, filepath.Join(layer, filepath.Base(m.Upper)), filepath.Join(layer, filepath.Base(m.Work))
	if err := m.overlay(target); err != nil {
		return err
	}
	for _, path := range []string{lower, layer} { // the layer's folder contains more than the layer
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach %s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// overlay mounts Source with a writable layer. userxattr is what the kernel demands in a user namespace (Linux 5.11).
func (m Mount) overlay(target string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, option := range [][2]string{{"lowerdir", escapeLower(m.Source)}, {"upperdir", m.Upper}, {"workdir", m.Work}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return fmt.Errorf("set %s=%s: %w", option[0], option[1], err)
		}
	}
	if err := unix.FsconfigSetFlag(fs, "userxattr"); err != nil {
		return fmt.Errorf("set userxattr: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create overlay: %w", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, untrusted)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

// escapeLower escapes the character that separates lower folders (overlayfs.rst).
func escapeLower(path string) string { return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path) }

// readOnlyInProc are entries of /proc through which the owner of the host's files could change the machine. hiddenInProc
// are those with facts of the whole machine that no program of a Space needs (the list of containers: opencontainers
// runtime-spec, "maskedPaths").
var (
	readOnlyInProc = []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "pressure"}
	hiddenInProc   = []string{
		"kcore", "keys", "latency_stats", "timer_list", "sched_debug", "kmsg", "kallsyms",
		"kpagecount", "kpageflags", "kpagecgroup", "vmallocinfo", "slabinfo", "iomem", "ioports", // for root, whose uid the Spaces of a root host have
	}
)

// procStep begins the error of a refused /proc.
const procStep = "mount /proc: "

// mountProc mounts /proc with the processes of this pid namespace alone.
func mountProc(proc string) error {
	if err := os.MkdirAll(proc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf(procStep+"%w", err)
	}
	for _, name := range readOnlyInProc {
		if err := ifExists(bind(filepath.Join(proc, name), filepath.Join(proc, name), sealed)); err != nil {
			return fmt.Errorf("make /proc/%s read-only: %w", name, err)
		}
	}
	for _, name := range hiddenInProc {
		target := filepath.Join(proc, name)
		if _, err := os.Stat(target); err != nil {
			continue
		}
		if err := bind("/dev/null", target, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return fmt.Errorf("hide /proc/%s: %w", name, err)
		}
	}
	return nil
}

// ifExists ignores the error of a path that this kernel does not have.
func ifExists(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// StandardDevices are device nodes that every program may use: they give no access to the machine.
var StandardDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// mountDev creates a /dev with the standard devices, the devices of the Spec, terminals and shared memory of its own.
func mountDev(dev string, mounts []openMount) error {
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	var nodes []openMount
	for _, path := range StandardDevices {
		nodes = append(nodes, openMount{Mount: Mount{Kind: Device, Source: path, Target: path}})
	}
	for _, m := range mounts {
		if m.Kind == Device && !m.OnDemand {
			nodes = append(nodes, m)
		}
	}
	for _, node := range nodes {
		if err := node.mount(filepath.Dir(dev)); err != nil {
			return fmt.Errorf("mount device %s: %w", node.Source, err)
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	if err := mountIn(dev, "pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return err
	}
	return mountIn(dev, "shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

func mountIn(dev, name, kind string, flags uintptr, options string) error {
	target := filepath.Join(dev, name)
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount /dev/%s: %w", name, err)
	}
	return nil
}
