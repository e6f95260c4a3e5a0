package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// checks is the number of runs of `spacehost check` in one round; the first one of all installs and compiles the reader.
const checks = 5

// checkTimes measures `spacehost check`, which only reads, and `check --run`, which also starts the app once. Plain Gradio's
// number is its own start until the first answer.
func checkTimes(ctx context.Context, b *bench, s *target) (values, error) {
	if s.name == stock {
		return values{"run_s": s.first.Seconds()}, nil
	}
	home, err := os.MkdirTemp(b.scratch, "check-")
	if err != nil {
		return nil, err
	}
	check := func(args ...string) (time.Duration, error) {
		cmd := exec.CommandContext(ctx, b.spacehost, append([]string{"check", b.app, "--fail-on", "never", "--python", b.env.Python,
			"--state", filepath.Join(home, "state")}, args...)...)
		cmd.Env = plainEnv(home)
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		return time.Since(began), nil
	}
	if _, err := check(); err != nil {
		return nil, err
	}
	var all []time.Duration
	for range checks {
		took, err := check()
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	run, err := check("--run")
	if err != nil {
		return nil, err
	}
	return values{"read_ms": percentile(all, 50), "run_s": run.Seconds()}, nil
}
