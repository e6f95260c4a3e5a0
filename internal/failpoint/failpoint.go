// Package failpoint marks the points at which a crash of the host must not lose or duplicate data, so that tests can crash
// the host there.
package failpoint

// Hook is called at each failpoint, from any goroutine. It is nil except in test binaries. Set it before any other
// goroutine starts.
var Hook func(point string)

// Here is a failpoint.
func Here(point string) {
	if Hook != nil {
		Hook(point)
	}
}
