//go:build race

package outbox

// racing reports whether the race detector runs. It knows the order of system calls of package syscall alone.
const racing = true
