package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature"
)

// FilesProbe is what this machine offers for level `files`.
type FilesProbe struct {
	ABI  int      // of Landlock; 0 if there is none
	Left []string // restrictions that the kernel's Landlock lacks, in words
	Err  error    // why the level is not available; nil if it is
}

// probeLimit bounds a probe, which takes about 20 ms.
const probeLimit = 5 * time.Second

// ProbeFiles starts a process that confines itself by Landlock and seccomp and checks that both are in force. It
// honours feature.Variable.
func ProbeFiles() FilesProbe {
	for _, name := range []string{feature.Landlock, feature.Seccomp} {
		if feature.Disabled(name) {
			return FilesProbe{Err: fmt.Errorf("%s is disabled by %s", name, feature.Variable)}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env = []string{probeName}, []string{}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return FilesProbe{Err: fmt.Errorf("probe of level files: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))}
	}
	var got probeReport
	if err := json.Unmarshal(out, &got); err != nil {
		return FilesProbe{Err: fmt.Errorf("probe of level files: unreadable answer %q: %w", out, err)}
	}
	probe := FilesProbe{ABI: got.ABI, Left: got.Left}
	if got.Error != "" {
		probe.Err = errors.New(got.Error)
	}
	return probe
}

type probeReport struct {
	ABI int
	report
}

func runProbe() {
	runtime.LockOSThread()
	var got probeReport
	var err error
	if got.ABI, got.Left, err = tryFiles(); err != nil {
		got.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
		os.Exit(exitConfinement)
	}
	os.Exit(0)
}

// tryFiles confines the calling thread with no rules at all and then tries what must fail.
func tryFiles() (abi int, left []string, err error) {
	if abi, err = landlockABI(); err != nil {
		return 0, nil, fmt.Errorf("landlock: %w", err)
	}
	if left, err = (FilesSpec{}).confineThread(); err != nil {
		return abi, nil, err
	}
	if _, err := os.ReadDir("/"); !errors.Is(err, unix.EACCES) {
		return abi, left, fmt.Errorf("landlock: reading / was not refused (%v)", err)
	}
	if err := unix.Unshare(0); !errors.Is(err, unix.EPERM) { // without the filter unshare(0) does nothing
		return abi, left, fmt.Errorf("seccomp: unshare was not refused (%v)", err)
	}
	return abi, left, nil
}
