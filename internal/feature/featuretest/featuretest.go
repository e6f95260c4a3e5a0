// Package featuretest is for tests that need something of the machine: a program, a level of isolation, root, the network.
package featuretest

import (
	"fmt"
	"os"
	"testing"
)

// requireAll is the variable with which CI lets no test be skipped.
const requireAll = "SPACEHOST_REQUIRE_ALL"

// Missing skips a test because the machine lacks something, which the sentence names. It fails the test instead if CI
// demands that no test is skipped. It does not return.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if os.Getenv(requireAll) != "" {
		t.Fatalf("%s, and %s demands that this is tested", what, requireAll)
	}
	t.Skipf("SKIPPED: %s; this was not tested", what)
}
