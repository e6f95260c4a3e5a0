package sandbox

import "golang.org/x/sys/unix"

// auditArch is the architecture that the kernel reports to the filter for system calls of this program.
const auditArch = unix.AUDIT_ARCH_X86_64

// x32Bit marks the system calls of the x32 ABI, which has the same auditArch. Without a check they would pass a list
// of numbers.
const x32Bit = 0x40000000

// deniedHere are denied system calls that only this architecture has: direct access to I/O ports.
var deniedHere = []uint32{unix.SYS_IOPERM, unix.SYS_IOPL}
