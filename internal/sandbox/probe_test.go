package sandbox

import (
	"strings"
	"testing"

	"spacehost/internal/feature"
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
