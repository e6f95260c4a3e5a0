package worker

import (
	"os"
	"testing"
	"time"

	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	if mode := os.Getenv(fakeVariable); mode != "" {
		beFake(mode)
	}
	proctreetest.Main(m)
}

// Short names of the helpers that most tests use.
const patient = proctreetest.Patience

var (
	tempDir    = proctreetest.TempDir
	eventually = proctreetest.Eventually
)

func within[T any](t testing.TB, limit time.Duration, what string, done <-chan T) T {
	t.Helper()
	return proctreetest.Within(t, limit, what, done)
}
