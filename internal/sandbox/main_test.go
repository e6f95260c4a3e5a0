package sandbox

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"spacehost/internal/failpoint"
	"spacehost/internal/feature/featuretest"
)

// fakePrefix begins os.Args[0] of the processes that tests start from this binary.
const fakePrefix = "sandbox test: "

// fakes are the processes that tests start from this binary.
var fakes = map[string]func(){}

// crashAt is a variable with the step before which init exits.
const crashAt = "SANDBOX_TEST_CRASH_AT"

func TestMain(m *testing.M) {
	if step := os.Getenv(crashAt); step != "" {
		failpoint.Hook = func(point string) {
			if point == "sandbox: "+step {
				os.Exit(1)
			}
		}
	}
	MaybeRun()
	if name, ok := strings.CutPrefix(os.Args[0], fakePrefix); ok {
		fakes[name]()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// runFake runs a process of fakes and returns its output.
func runFake(t *testing.T, name string, args ...string) (stdout string, state *os.ProcessState) {
	t.Helper()
	return runFakeAs(t, uint32(os.Geteuid()), name, args...)
}

// runFakeAs is runFake as another user, for root.
func runFakeAs(t *testing.T, uid uint32, name string, args ...string) (stdout string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{fakePrefix + name}, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if uid != uint32(os.Geteuid()) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState
}

// account is a user under which attacks run.
type account struct {
	name string
	sys  *syscall.SysProcAttr // nil: that of the tests
	uid  int
}

// accounts are the user of the tests, and for root also an ordinary user.
func accounts() []account {
	if os.Geteuid() != 0 {
		return []account{{"user", nil, os.Geteuid()}}
	}
	const ordinary = 61234
	return []account{{"root", nil, 0}, {"user", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}, ordinary}}
}

// requireFiles skips the test if this machine cannot run level `files`.
func requireFiles(t *testing.T) FilesProbe {
	t.Helper()
	probe := ProbeFiles()
	if probe.Err != nil {
		featuretest.Missing(t, "no %s", "level files: "+probe.Err.Error())
	}
	return probe
}

// python returns an interpreter that the account can start, and the folders that it reads.
func (a account) python(t *testing.T) (path string, folders []string) {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		cmd := exec.Command(name, "-c", "import sys; print(sys.executable, sys.prefix, sys.base_prefix)")
		cmd.SysProcAttr = a.sys
		if out, err := cmd.Output(); err == nil {
			words := strings.Fields(string(out))
			return words[0], words[1:]
		}
	}
	featuretest.Missing(t, "no %s", "python3 that uid "+a.name+" can start")
	return "", nil
}

// statusField returns a field of /proc/PID/status.
func statusField(t *testing.T, status, field string) string {
	t.Helper()
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %q", field, status)
	return ""
}
