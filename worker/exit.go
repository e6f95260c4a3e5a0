package worker

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"spacehost/internal/sandbox"
)

// wait waits for the first process of the tree, and returns how the runner ended. In a sandbox, process 1 reports it.
func (p *Process) wait() sandbox.Exit {
	err := p.cmd.Wait()
	if p.sandbox != nil {
		if e, ok := p.sandbox.AwaitExit(drainTimeout); ok {
			return e
		}
	}
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return sandbox.Exit{}
	}
	if status := failed.Sys().(syscall.WaitStatus); status.Signaled() {
		return sandbox.Exit{Signal: status.Signal()}
	}
	return sandbox.Exit{Code: failed.ExitCode()}
}

func exitReason(e sandbox.Exit) string {
	if e.Signal != 0 {
		return fmt.Sprintf("it was killed by signal %d (%s)", e.Signal, e.Signal)
	}
	return fmt.Sprintf("it exited with code %d", e.Code)
}
