package main

import (
	"os"
	"path/filepath"
	"testing"

	"spacehost/internal/build/buildtest"
	"spacehost/internal/cli"
	"spacehost/internal/sandbox"
)

// beSpacehost names the variable that makes the test binary act as the product. So the end-to-end tests start the real command,
// including the race detector, as separate processes that can be killed.
const beSpacehost = "SPACEHOST_TEST_BE_SPACEHOST"

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	if os.Getenv(beSpacehost) != "" {
		armFailpoints()
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	code := m.Run()
	if !closeSample() {
		code = 1
	}
	os.Exit(code)
}

// cacheDir returns the folder that is kept between runs. It contains environments built by the product's builder, and npm packages.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir, err := buildtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func environments(t testing.TB) string { return filepath.Join(cacheDir(t), "environments") }

// productEnv returns the environment of a spacehost that a test starts.
func productEnv(t testing.TB) []string {
	return append(os.Environ(), beSpacehost+"=1", "SPACEHOST_ENVIRONMENTS="+environments(t))
}
