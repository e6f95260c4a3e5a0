package sandbox

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are the system calls that fail with EPERM: they change the machine or the view of it, or they are large
// interfaces of the kernel that a Space does not need.
//
// These are allowed on purpose: memfd_create, which CUDA needs; process_vm_* and pidfd_*, which Landlock or the pid
// namespace restrict; the memory policy.
var denied = []uint32{
	// kernel, modules, tracing
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_PTRACE, unix.SYS_LOOKUP_DCOOKIE,
	// io_uring performs operations without a system call that a filter could check
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// keys of the user
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	// mounts, namespaces, roots
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT,
	// administration
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
}

// namespaceFlags are the flags of clone that make namespaces. CLONE_NEWTIME is not a flag of clone.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// inetTypes and inetProtocols are what a socket of AF_INET or AF_INET6 may be.
//
//   - MPTCP (262) and SMC (256) connect by TCP and pass the TCP rules of Landlock (landlock-lsm/linux#54).
//   - A raw socket writes TCP by hand. SOCK_PACKET is AF_PACKET by its old name.
var (
	inetTypes     = []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM}
	inetProtocols = []uint32{0, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6}
)

// socketTypeMask are the bits of socket's type argument that are no flags.
const socketTypeMask = 0xf

// applySeccomp installs the filter for the calling thread and for all that it starts from then on. It sets
// NO_NEW_PRIVS first. The caller is locked to its thread (runtime.LockOSThread), and either replaces the process
// (execve) or forks the interpreter from this thread; other threads are not filtered. After an error the caller exits.
func applySeccomp() error {
	program, err := assemble(seccompProgram())
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set NO_NEW_PRIVS: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	return nil
}

func assemble(program []bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// Answers of the filter.
var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	kill  = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

func fail(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// Offsets in struct seccomp_data.
const (
	offsetCall = 0
	offsetArch = 4
)

// argument loads the low half of an argument. All arguments that the filter checks are 32 bits wide in the kernel,
// which ignores the high half. A filter that compared 64 bits would miss a value with bits in the high half
// (CVE-2019-10063 of Flatpak).
func argument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: 16 + 8*n, Size: 4} }

// highHalf loads the high half of an argument. It is for pointers, which are 64 bits wide.
func highHalf(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: 20 + 8*n, Size: 4} }

// seccompProgram returns the filter. It runs for each system call:
//
//  1. A call of another architecture kills the process. A call of the x32 ABI fails.
//  2. Calls in denied fail.
//  3. clone must not make namespaces. clone3 has its flags behind a pointer, which a filter cannot follow; the C
//     library uses clone after ENOSYS.
//  4. Sockets are of few families, types and protocols.
//  5. MSG_FASTOPEN connects without connect, and passes the TCP rules of Landlock (landlock-lsm/linux#41).
//  6. TIOCSTI and TIOCLINUX type into the terminal of the host.
//  7. prlimit64 sets limits of the calling process alone. A limit of CPU time ends a process, and neither Landlock's scope
//     of signals nor a capability guards those of the same user. Reading limits is allowed.
//  8. All other calls are allowed.
func seccompProgram() []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1}, kill,
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
	}
	if x32Bit != 0 {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1}, fail(unix.EPERM))
	}
	program = append(program, resultFor(slices.Concat(denied, deniedHere), fail(unix.EPERM))...)
	program = append(program, resultFor([]uint32{unix.SYS_CLONE3}, fail(unix.ENOSYS))...)
	for _, rule := range []struct {
		call  uint32
		block []bpf.Instruction
	}{
		{unix.SYS_CLONE, withoutBits(0, namespaceFlags, unix.EPERM)},
		{unix.SYS_SOCKET, socketBlock()},
		{unix.SYS_SOCKETPAIR, socketBlock()},
		{unix.SYS_SENDTO, withoutBits(3, unix.MSG_FASTOPEN, unix.EOPNOTSUPP)},
		{unix.SYS_SENDMSG, withoutBits(2, unix.MSG_FASTOPEN, unix.EOPNOTSUPP)},
		{unix.SYS_SENDMMSG, withoutBits(3, unix.MSG_FASTOPEN, unix.EOPNOTSUPP)},
		{unix.SYS_PRLIMIT64, prlimitBlock()},
		{unix.SYS_IOCTL, without(1, []uint32{unix.TIOCSTI, unix.TIOCLINUX}, unix.EPERM)},
	} {
		skip := bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: rule.call, SkipTrue: uint8(len(rule.block))}
		program = append(append(program, skip), rule.block...)
	}
	return append(program, allow)
}

// resultFor returns an instruction for each of the values that the accumulator may have.
func resultFor(values []uint32, result bpf.Instruction) (block []bpf.Instruction) {
	for _, v := range values {
		block = append(block, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, result)
	}
	return block
}

// unless fails with errno if the accumulator has none of the values, and continues otherwise.
func unless(values []uint32, errno unix.Errno) (block []bpf.Instruction) {
	for i, v := range values {
		block = append(block, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	return append(block, fail(errno))
}

// without allows a call unless its argument has one of the values.
func without(n uint32, values []uint32, errno unix.Errno) []bpf.Instruction {
	return append(append([]bpf.Instruction{argument(n)}, resultFor(values, fail(errno))...), allow)
}

// withoutBits allows a call unless its argument has one of the bits.
func withoutBits(n, bits uint32, errno unix.Errno) []bpf.Instruction {
	return []bpf.Instruction{argument(n), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipFalse: 1}, fail(errno), allow}
}

// prlimitBlock allows prlimit64 with pid 0, the calling process, or without new limits, a null pointer.
func prlimitBlock() []bpf.Instruction {
	return []bpf.Instruction{
		argument(0), bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 5},
		argument(2), bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 2},
		highHalf(2), bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		fail(unix.EPERM),
		allow,
	}
}

// socketBlock decides about socket and socketpair by family, type and protocol.
func socketBlock() []bpf.Instruction {
	return slices.Concat(
		[]bpf.Instruction{argument(0)},
		resultFor([]uint32{unix.AF_UNIX, unix.AF_NETLINK}, allow),
		unless([]uint32{unix.AF_INET, unix.AF_INET6}, unix.EAFNOSUPPORT),
		[]bpf.Instruction{argument(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketTypeMask}},
		unless(inetTypes, unix.EPERM),
		[]bpf.Instruction{argument(2)},
		unless(inetProtocols, unix.EPROTONOSUPPORT),
		[]bpf.Instruction{allow},
	)
}
