// Package failpoint names the moments at which a host may die without harm, so that a test can let it.
package failpoint

// Hook is called at each point, from any goroutine. Nil, as in every binary but a test's, is nobody. Set it before
// anything runs.
var Hook func(point string)

// Here is such a moment.
func Here(point string) {
	if Hook != nil {
		Hook(point)
	}
}
