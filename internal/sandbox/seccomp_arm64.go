package sandbox

import "golang.org/x/sys/unix"

// auditArch is the architecture that the kernel reports to the filter for system calls of this program.
const auditArch = unix.AUDIT_ARCH_AARCH64

// x32Bit is 0: this architecture has one ABI of 64 bits.
const x32Bit = 0

// deniedHere are denied system calls that only this architecture has.
var deniedHere []uint32
