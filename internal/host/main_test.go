package host

import (
	"os"
	"testing"

	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	os.Exit(m.Run())
}

// missing skips a test for lack of something, or fails it if SPACEHOST_REQUIRE_ALL is set.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SPACEHOST_REQUIRE_ALL") != "" {
		t.Fatalf("%s is required", what)
	}
	t.Skipf("SKIPPED: no %s; this was not tested", what)
}
