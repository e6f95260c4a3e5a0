package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// keptCapabilities remain with the processes of a root host at level `files`: a Space's folder may belong to another
// user. All others are dropped:
//
//   - CAP_NET_RAW would send TCP past Landlock's ports.
//   - CAP_PERFMON would read the environment of every process past Landlock (mm_access, Linux 6.18).
//   - CAP_CHOWN and CAP_FOWNER would change owner and mode of every file, which Landlock does not restrict.
const keptCapabilities = 1 << unix.CAP_DAC_OVERRIDE

// dropCapabilities drops the capabilities of the calling thread for level `files`.
func dropCapabilities() error { return keepCapabilities(keptCapabilities) }

// keepCapabilities drops all capabilities of the calling thread but those of a mask, as far as it has them. It sets
// NO_NEW_PRIVS first, so that execve, even by uid 0, gives none of them back.
func keepCapabilities(mask uint32) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set NO_NEW_PRIVS: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient set: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // capabilities 0 to 31, 32 to 63
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read the sets: %w", err)
	}
	kept := sets[0].Permitted & mask
	sets = [2]unix.CapUserData{{Effective: kept, Permitted: kept}, {}}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("set the sets: %w", err)
	}
	return nil
}

// kernelSetting is a file whose writer runs code as root outside of every confinement.
const kernelSetting = "/proc/sys/kernel/core_pattern"

// protectKernelSettings makes /proc read-only for the calling thread and its children, except for the folders of
// processes. CUDA writes its thread names to /proc/PID/task/TID/comm, so Landlock has to permit writing to /proc
// (NVIDIA/OpenShell#710). The kernel's settings in /proc belong to uid 0, which needs no capability to write them.
// Nothing happens if they are read-only already, or the process is not root.
func protectKernelSettings() error {
	if unix.Access(kernelSetting, unix.W_OK) != nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := mountReadOnly(entry); err != nil {
			return err
		}
	}
	if err := unix.Access(kernelSetting, unix.W_OK); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s is still writable (%v)", kernelSetting, err)
	}
	return nil
}

// mountReadOnly mounts a folder of /proc, or a file that somebody may write, over itself. Processes and links are left
// alone.
func mountReadOnly(entry os.DirEntry) error {
	info, err := entry.Info()
	if errors.Is(err, os.ErrNotExist) {
		return nil // a process that has exited
	}
	if err != nil {
		return err
	}
	_, notNumber := strconv.Atoi(entry.Name())
	writable := info.IsDir() || info.Mode().IsRegular() && info.Mode().Perm()&0o222 != 0
	if notNumber == nil || !writable {
		return nil
	}
	path := filepath.Join("/proc", entry.Name())
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}
