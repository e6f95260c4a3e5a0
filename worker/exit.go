package worker

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
)

// exit is how the runner ended. signal is 0 unless a signal ended it.
type exit struct {
	code   int
	signal syscall.Signal
}

// wait waits for the first process of the tree. In a sandbox, process 1 reports how the runner ended.
func (p *Process) wait() exit {
	err := p.cmd.Wait()
	if p.sandbox != nil {
		if e, ok := p.sandbox.AwaitExit(drainTimeout); ok {
			return exit{e.Code, e.Signal}
		}
	}
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return exit{}
	}
	if status := failed.Sys().(syscall.WaitStatus); status.Signaled() {
		return exit{signal: status.Signal()}
	}
	return exit{code: failed.ExitCode()}
}

func (e exit) reason() string {
	if e.signal != 0 {
		return fmt.Sprintf("it was killed by signal %d (%s)", e.signal, e.signal)
	}
	return fmt.Sprintf("it exited with code %d", e.code)
}
