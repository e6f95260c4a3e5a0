package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// refusedCalls is the specification: none of them may be removed from the filter.
var refusedCalls = map[string]uintptr{
	"kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD, "init_module": unix.SYS_INIT_MODULE,
	"finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE, "bpf": unix.SYS_BPF,
	"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD, "keyctl": unix.SYS_KEYCTL,
	"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2,
	"pivot_root": unix.SYS_PIVOT_ROOT, "move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE,
	"open_tree_attr": unix.SYS_OPEN_TREE_ATTR, "fsopen": unix.SYS_FSOPEN, "fsmount": unix.SYS_FSMOUNT,
	"fsconfig": unix.SYS_FSCONFIG, "fspick": unix.SYS_FSPICK, "mount_setattr": unix.SYS_MOUNT_SETATTR, "setns": unix.SYS_SETNS,
	"unshare": unix.SYS_UNSHARE, "chroot": unix.SYS_CHROOT, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	"io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
	"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF,
	"reboot": unix.SYS_REBOOT, "acct": unix.SYS_ACCT, "quotactl": unix.SYS_QUOTACTL, "quotactl_fd": unix.SYS_QUOTACTL_FD,
	"settimeofday": unix.SYS_SETTIMEOFDAY, "clock_settime": unix.SYS_CLOCK_SETTIME, "syslog": unix.SYS_SYSLOG,
	"vhangup": unix.SYS_VHANGUP, "lookup_dcookie": unix.SYS_LOOKUP_DCOOKIE, "ptrace": unix.SYS_PTRACE,
}

// allowedCalls must stay allowed: CUDA, Python and the C library use them.
var allowedCalls = map[string]uintptr{
	"memfd_create": unix.SYS_MEMFD_CREATE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "pidfd_open": unix.SYS_PIDFD_OPEN,
	"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "mbind": unix.SYS_MBIND,
	"set_mempolicy": unix.SYS_SET_MEMPOLICY, "get_mempolicy": unix.SYS_GET_MEMPOLICY, "execve": unix.SYS_EXECVE,
	"futex": unix.SYS_FUTEX, "mmap": unix.SYS_MMAP, "openat": unix.SYS_OPENAT, "seccomp": unix.SYS_SECCOMP,
	"read": unix.SYS_READ, "connect": unix.SYS_CONNECT, "sched_setaffinity": unix.SYS_SCHED_SETAFFINITY,
}

// decide runs the filter in an emulator. The emulator reads big-endian words, so each 32-bit field is stored so. The
// order of the two halves of an argument is that of a little-endian machine.
func decide(t *testing.T, arch uint32, call uintptr, args ...uint64) int {
	t.Helper()
	vm, err := bpf.NewVM(seccompProgram())
	if err != nil {
		t.Fatal(err)
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(call))
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...) // the instruction pointer
	for _, arg := range append(args, make([]uint64, 6-len(args))...) {
		data = binary.BigEndian.AppendUint32(data, uint32(arg))
		data = binary.BigEndian.AppendUint32(data, uint32(arg>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func refusal(errno unix.Errno) int { return unix.SECCOMP_RET_ERRNO | int(errno) }

func TestFilterByNumber(t *testing.T) {
	for name, call := range refusedCalls {
		if got := decide(t, auditArch, call); got != refusal(unix.EPERM) {
			t.Errorf("%s: got %#x, want EPERM", name, got)
		}
	}
	for name, call := range allowedCalls {
		if got := decide(t, auditArch, call); got != unix.SECCOMP_RET_ALLOW {
			t.Errorf("%s: got %#x, want that it is allowed", name, got)
		}
	}
	for _, arch := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390X} {
		if got := uint32(decide(t, arch, unix.SYS_READ)); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("architecture %#x: got %#x, want that the process is killed", arch, got)
		}
	}
	if got := decide(t, auditArch, unix.SYS_CLONE3); got != refusal(unix.ENOSYS) {
		t.Errorf("clone3: got %#x, want ENOSYS", got)
	}
}

// high is a bit in the half of an argument that the kernel ignores.
const high = 1 << 40

func TestFilterByArgument(t *testing.T) {
	const allowed = unix.SECCOMP_RET_ALLOW
	threadFlags := uint64(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM |
		unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID)
	for _, c := range []struct {
		name string
		want int
		call uintptr
		args []uint64
	}{
		{"fork", allowed, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}},
		{"vfork", allowed, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}},
		{"thread", allowed, unix.SYS_CLONE, []uint64{threadFlags}},
		{"tcp", allowed, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}},
		{"tcp by number", allowed, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP}},
		{"udp", allowed, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}},
		{"ping", allowed, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}},
		{"unix seqpacket", allowed, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}},
		{"unix pair", allowed, unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_STREAM}},
		{"netlink", allowed, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}},
		{"mptcp", refusal(unix.EPROTONOSUPPORT), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}},
		{"mptcp 6", refusal(unix.EPROTONOSUPPORT), unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, high | unix.IPPROTO_MPTCP}},
		{"smc", refusal(unix.EPROTONOSUPPORT), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, 256}},
		{"sctp", refusal(unix.EPROTONOSUPPORT), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}},
		{"sctp by type", refusal(unix.EPERM), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_SEQPACKET}},
		{"raw", refusal(unix.EPERM), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP}},
		{"packet by type", refusal(unix.EPERM), unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_PACKET}},
		{"family with a high half", refusal(unix.EAFNOSUPPORT), unix.SYS_SOCKET, []uint64{high | unix.AF_VSOCK, unix.SOCK_STREAM}},
		{"pair", refusal(unix.EAFNOSUPPORT), unix.SYS_SOCKETPAIR, []uint64{unix.AF_TIPC, unix.SOCK_STREAM}},
		{"sendto", allowed, unix.SYS_SENDTO, []uint64{3, 0, 0, unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT}},
		{"sendto fastopen", refusal(unix.EOPNOTSUPP), unix.SYS_SENDTO, []uint64{3, 0, 0, high | unix.MSG_FASTOPEN}},
		{"sendmsg fastopen", refusal(unix.EOPNOTSUPP), unix.SYS_SENDMSG, []uint64{3, 0, unix.MSG_FASTOPEN | unix.MSG_NOSIGNAL}},
		{"limits of another process", refusal(unix.EPERM), unix.SYS_PRLIMIT64, []uint64{77, unix.RLIMIT_CPU, 0x1000}},
		{"limits of another process, at a high address", refusal(unix.EPERM), unix.SYS_PRLIMIT64, []uint64{77, unix.RLIMIT_CPU, 1 << 32}},
		{"limits of its own", unix.SECCOMP_RET_ALLOW, unix.SYS_PRLIMIT64, []uint64{high, unix.RLIMIT_CPU, 0x1000}},
		{"limits of another process, read", unix.SECCOMP_RET_ALLOW, unix.SYS_PRLIMIT64, []uint64{77, unix.RLIMIT_CPU, 0, 0x1000}},
		{"sendmmsg fastopen", refusal(unix.EOPNOTSUPP), unix.SYS_SENDMMSG, []uint64{3, 0, 1, unix.MSG_FASTOPEN}},
		{"ioctl", allowed, unix.SYS_IOCTL, []uint64{0, unix.TCGETS}},
		{"tiocsti", refusal(unix.EPERM), unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}},
		{"tiocsti with a high half", refusal(unix.EPERM), unix.SYS_IOCTL, []uint64{0, high | unix.TIOCSTI}},
		{"tioclinux", refusal(unix.EPERM), unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX}},
	} {
		if got := decide(t, auditArch, c.call, c.args...); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
	for _, flag := range []uint64{unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET} {
		if got := decide(t, auditArch, unix.SYS_CLONE, high|flag|uint64(unix.SIGCHLD)); got != refusal(unix.EPERM) {
			t.Errorf("clone with %#x: got %#x, want EPERM", flag, got)
		}
	}
	for family := range uint64(unix.AF_MAX) {
		known := slices.Contains([]uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}, family)
		if got := decide(t, auditArch, unix.SYS_SOCKET, family, unix.SOCK_STREAM); known != (got == allowed) || !known && got != refusal(unix.EAFNOSUPPORT) {
			t.Errorf("family %d: got %#x", family, got)
		}
	}
}

func init() {
	fakes["filtered calls"] = func() {
		applyLocked()
		answers := map[string]string{}
		for name, call := range refusedCalls {
			_, _, errno := unix.RawSyscall6(call, 0, 0, 0, 0, 0, 0)
			answers[name] = unix.ErrnoName(errno)
		}
		extra := func(name string, call uintptr, a, b, c uintptr) {
			_, _, errno := unix.RawSyscall(call, a, b, c)
			answers[name] = unix.ErrnoName(errno)
		}
		extra("clone3", unix.SYS_CLONE3, 0, 0, 0)
		extra("vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
		extra("packet", unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)
		extra("alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		extra("mptcp", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		extra("raw", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		extra("tcp", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
		extra("tiocsti", unix.SYS_IOCTL, 1, high|unix.TIOCSTI, 0)
		if x32Bit != 0 {
			extra("x32", x32Bit|unix.SYS_GETPID, 0, 0, 0)
		}
		if _, err := unix.MemfdCreate("allowed", 0); err != nil {
			answers["memfd_create"] = err.Error()
		}
		child := exec.Command("/proc/self/exe")
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		answers["clone"] = fmt.Sprint(child.Start())
		_ = json.NewEncoder(os.Stdout).Encode(answers)
	}
	fakes["privileges of a filtered process"] = func() {
		applyLocked()
		_ = syscall.Exec("/bin/cat", []string{"cat", "/proc/self/status"}, nil)
	}
}

// applyLocked applies the filter to this thread, which is locked.
func applyLocked() {
	runtime.LockOSThread()
	if err := applySeccomp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestKernelRefusesTheCalls(t *testing.T) {
	out, state := runFake(t, "filtered calls")
	var answers map[string]string
	if err := json.Unmarshal([]byte(out), &answers); err != nil {
		t.Fatalf("%v after %q: %v", state, out, err)
	}
	want := map[string]string{
		"clone3": "ENOSYS", "vsock": "EAFNOSUPPORT", "packet": "EAFNOSUPPORT", "alg": "EAFNOSUPPORT", "mptcp": "EPROTONOSUPPORT",
		"raw": "EPERM", "tcp": "", "tiocsti": "EPERM", "clone": "fork/exec /proc/self/exe: operation not permitted",
	}
	if x32Bit != 0 {
		want["x32"] = "EPERM"
	}
	for name := range refusedCalls {
		want[name] = "EPERM"
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got, tried := answers[name]; got != want[name] || !tried {
			t.Errorf("%s: got %q, want %q", name, got, want[name])
		}
	}
	if text := answers["memfd_create"]; text != "" {
		t.Error("memfd_create, which CUDA needs:", text)
	}
}

func TestFilterStaysAfterExec(t *testing.T) {
	out, _ := runFake(t, "privileges of a filtered process")
	for field, want := range map[string]int{"NoNewPrivs": 1, "Seccomp": 2} {
		if got := statusField(t, out, field); got != strconv.Itoa(want) {
			t.Errorf("%s: got %s, want %d", field, got, want)
		}
	}
}
