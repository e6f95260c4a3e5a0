package cli

import (
	"os"
	"testing"

	"spacehost/internal/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun() // doctor starts this binary again
	os.Exit(m.Run())
}
