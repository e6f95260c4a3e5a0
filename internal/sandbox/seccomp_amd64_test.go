package sandbox

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature/featuretest"
)

func init() {
	// int $0x80 enters the kernel by the system calls of i386, whose numbers the filter does not know.
	fakes["call of i386"] = func() {
		if len(os.Args) > 1 {
			applyLocked()
		}
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			panic(err)
		}
		copy(page, []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}) // mov $20 (getpid), %eax; int $0x80; ret
		entry := &page[0]
		call := *(*func())(unsafe.Pointer(new(&entry)))
		call()
		fmt.Print("done")
	}
}

func TestForeignCallsKill(t *testing.T) {
	if out, state := runFake(t, "call of i386"); out != "done" {
		featuretest.Missing(t, "no %s", fmt.Sprintf("kernel with system calls of i386 (%v)", state))
	}
	_, state := runFake(t, "call of i386", "filtered")
	if status := state.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != unix.SIGSYS {
		t.Errorf("got %v, want that the process is killed by SIGSYS", state)
	}
}
