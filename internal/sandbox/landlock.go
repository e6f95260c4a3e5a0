package sandbox

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FileRules are what a process behind Landlock may reach. All that no field lists is refused.
type FileRules struct {
	// Read are folders and files that may be read and executed, with all below them. A path that does not exist is
	// skipped.
	Read []string
	// Write are folders and files that may also be changed, with all below them. Devices in them accept ioctl. No
	// device node can be made in them: it would open the machine's disks to a root host.
	Write []string
	// Connect and Bind are TCP ports, at any address.
	Connect, Bind []uint16
}

// Rights by kind of path.
const (
	readRights  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	writeRights = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	neverGranted = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	// fileRights are the rights that the kernel accepts in a rule for a path that is not a folder.
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	tcpRights = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP | unix.LANDLOCK_ACCESS_NET_BIND_TCP
)

// later are the restrictions that came after the first ABI of Landlock.
var later = []struct {
	abi             int
	fs, net, scoped uint64
	words           string // what an older kernel lets a Space do; "" if it refuses more instead
}{
	{abi: 2, fs: unix.LANDLOCK_ACCESS_FS_REFER}, // before, a rename from one folder to another always fails
	{abi: 3, fs: unix.LANDLOCK_ACCESS_FS_TRUNCATE, words: "truncating files (Linux 6.2)"},
	{abi: 4, net: tcpRights, words: "TCP ports (Linux 6.7)"},
	{abi: 5, fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, words: "device ioctls (Linux 6.10)"},
	{abi: 6, scoped: unix.LANDLOCK_SCOPE_SIGNAL, words: "signals (Linux 6.12)"},
	{abi: 6, scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, words: "abstract unix sockets (Linux 6.12)"},
	{abi: 9, fs: unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX, words: "named unix sockets (Linux 7.1)"},
}

// handled returns the restrictions of an ABI, and the words of those that it lacks.
func handled(abi int) (attr unix.LandlockRulesetAttr, left []string) {
	attr.Handled_access_fs = writeRights | neverGranted
	for _, l := range later {
		switch {
		case abi >= l.abi:
			attr.Handled_access_net |= l.net
			attr.Scoped |= l.scoped
		default:
			attr.Handled_access_fs &^= l.fs
			if l.words != "" {
				left = append(left, l.words)
			}
		}
	}
	return attr, left
}

// landlockABI returns the ABI of this kernel's Landlock.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("this kernel has no Landlock, or lsm= of its command line leaves it out: %w", errno)
	case errno != 0:
		return 0, fmt.Errorf("read the ABI: %w", errno)
	}
	return int(abi), nil
}

// applyLandlock restricts the calling thread, and all that it starts from then on, to the rules. It sets NO_NEW_PRIVS
// first. left names the restrictions that this kernel's Landlock lacks. The caller is locked to its thread. After an
// error the caller exits.
func applyLandlock(rules FileRules) (left []string, err error) {
	abi, err := landlockABI()
	if err != nil {
		return nil, err
	}
	return restrict(abi, rules)
}

// restrict is applyLandlock with the restrictions of an ABI.
func restrict(abi int, rules FileRules) (left []string, err error) {
	attr, left := handled(abi)
	made, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("create a ruleset of ABI %d: %w", abi, errno)
	}
	r := ruleset{int(made), attr}
	defer unix.Close(r.fd)
	if err := r.addAll(rules); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set NO_NEW_PRIVS: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); errno != 0 {
		return nil, fmt.Errorf("restrict the thread: %w", errno)
	}
	return left, nil
}

// ruleset is a Landlock ruleset that is not in force yet.
type ruleset struct {
	fd   int
	attr unix.LandlockRulesetAttr
}

func (r ruleset) addAll(rules FileRules) error {
	for _, path := range rules.Read {
		if err := r.addPath(path, readRights); err != nil {
			return err
		}
	}
	for _, path := range rules.Write {
		if err := r.addPath(path, writeRights); err != nil {
			return err
		}
	}
	for _, port := range rules.Connect {
		if err := r.addPort(port, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP); err != nil {
			return err
		}
	}
	for _, port := range rules.Bind {
		if err := r.addPort(port, unix.LANDLOCK_ACCESS_NET_BIND_TCP); err != nil {
			return err
		}
	}
	return nil
}

// addPath permits access to a path and all below it. The rule is bound to the inode, not to the name.
func (r ruleset) addPath(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access & r.attr.Handled_access_fs, Parent_fd: int32(fd)}
	if err := r.add(unix.LANDLOCK_RULE_PATH_BENEATH, unsafe.Pointer(&rule)); err != nil {
		return fmt.Errorf("add a rule for %s: %w", path, err)
	}
	return nil
}

// ruleNetPort and netPortAttr are LANDLOCK_RULE_NET_PORT and its struct landlock_net_port_attr.
const ruleNetPort = 2

type netPortAttr struct{ access, port uint64 }

func (r ruleset) addPort(port uint16, access uint64) error {
	if access &= r.attr.Handled_access_net; access == 0 {
		return nil // the kernel's Landlock does not restrict ports
	}
	rule := netPortAttr{access, uint64(port)}
	if err := r.add(ruleNetPort, unsafe.Pointer(&rule)); err != nil {
		return fmt.Errorf("add a rule for TCP port %d: %w", port, err)
	}
	return nil
}

func (r ruleset) add(kind uintptr, rule unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), kind, uintptr(rule), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
