package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// confine takes every right from this thread, whose copy becomes the interpreter. The order matters: each step needs a
// right that a later one takes.
func confine(spec Spec) error {
	if err := dropAllCapabilities(); err != nil {
		return err
	}
	if spec.Processes > 0 {
		limit := &unix.Rlimit{Cur: spec.Processes, Max: spec.Processes}
		if err := unix.Setrlimit(unix.RLIMIT_NPROC, limit); err != nil {
			return fmt.Errorf("limit processes to %d: %w", spec.Processes, err)
		}
	}
	return applySeccomp()
}

// noRights are the securebits under which neither root nor exec regains capabilities, locked (capabilities(7)).
const noRights = 1<<0 | 1<<1 | // SECBIT_NOROOT
	1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP
	1<<5 | // SECBIT_KEEP_CAPS_LOCKED
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE

// dropAllCapabilities empties all capability sets of this thread for good.
func dropAllCapabilities() error {
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRights, 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w", err)
	}
	for c := uintptr(0); c <= 63; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			break // EINVAL: the kernel has fewer
		}
	}
	return keepCapabilities(0)
}
