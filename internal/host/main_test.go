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
