package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature"
	"spacehost/internal/feature/featuretest"
)

func TestProbeReportsTheKernel(t *testing.T) {
	probe := requireFiles(t)
	abi, err := landlockABI()
	if err != nil || probe.ABI != abi || abi < 1 {
		t.Errorf("got ABI %d, want %d (%v)", probe.ABI, abi, err)
	}
	if _, left := handled(abi); strings.Join(probe.Left, ";") != strings.Join(left, ";") {
		t.Errorf("got left %q, want %q", probe.Left, left)
	}
}

func TestProbeHonoursTheVariable(t *testing.T) {
	for _, name := range []string{feature.Landlock, feature.Seccomp} {
		t.Setenv(feature.Variable, "cgroup,"+name)
		if got := ProbeFiles(); got.Err == nil || got.Err.Error() != name+" is disabled by SPACEHOST_DISABLE" {
			t.Errorf("got %+v", got)
		}
	}
}

func init() {
	fakes["masked proc"] = func() {
		if err := unix.Mount("/dev/null", "/proc/timer_list", "", unix.MS_BIND, ""); err != nil {
			fmt.Print("mask: ", err)
			return
		}
		probe, err := Probe(os.Args[1])
		step, _ := errors.AsType[*StepError](probe.Err)
		fmt.Print(err, "; ", probe.Err, "; ", step != nil && step.IsProcRefused())
	}
}

// TestProbeNamesMaskedProc checks what a container does: parts of its /proc are hidden.
func TestProbeNamesMaskedProc(t *testing.T) {
	if probe, err := Probe(t.TempDir()); err != nil || probe.Err != nil {
		featuretest.Missing(t, "no %s", fmt.Sprintf("level namespaces: %v, %v", err, probe.Err))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{fakePrefix + "masked proc", t.TempDir()}
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.Output()
	if want := "<nil>; sandbox: open the view of files: mount /proc: operation not permitted; true"; err != nil || string(out) != want {
		t.Errorf("got %q (%v), want %q", out, err, want)
	}
}
