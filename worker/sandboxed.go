package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
)

// wrap replaces the command of the interpreter by process 1 of a sandbox, which starts the interpreter.
func (p *Process) wrap(channel *os.File) (err error) {
	spec := *p.config.Sandbox
	spec.Argv, spec.Env, spec.Dir = p.cmd.Args, p.cmd.Environ(), p.cmd.Dir // Environ keeps the last value of a variable
	if spec.Argv[0], err = absolute(spec.Argv[0]); err != nil {
		return err
	}
	// The mount hides the folder's own content from the host, too, so it contains nothing.
	spec.Root = filepath.Join(p.config.RunDir, "root")
	if err := os.MkdirAll(spec.Root, 0o700); err != nil {
		return fmt.Errorf("create root of sandbox: %w", err)
	}
	if p.sandbox, err = sandbox.New(spec, channel); err != nil {
		return err
	}
	p.cmd = p.sandbox.Cmd
	return nil
}

// giveOutput gives the ends of the output to the user of the sandbox, if it has its own. Programs open /dev/stdout, and
// the kernel then checks the owner of the pipe.
func (p *Process) giveOutput(ends []*os.File) error {
	if p.config.Sandbox == nil || p.config.Sandbox.User == 0 {
		return nil
	}
	user := int(p.config.Sandbox.User)
	for _, end := range ends {
		if err := end.Chown(user, user); err != nil {
			return fmt.Errorf("give the output to uid %d: %w", user, err)
		}
	}
	return nil
}

func absolute(program string) (string, error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", program, err)
	}
	return path, nil
}

const (
	// spaceOOMScore lets the kernel choose a Space before the host when the memory of the machine is used up.
	spaceOOMScore = 300
	// runnerOOMScore lets it choose the runner before its process 1.
	runnerOOMScore = spaceOOMScore + 100
)

// enterSandbox lets the sandbox begin. After an error nothing of the start runs.
func (p *Process) enterSandbox() error {
	sockets, err := p.sandbox.Begin()
	if err == nil {
		err = p.findRunner()
	}
	if err != nil {
		closeAll(sockets)
		_ = p.cmd.Process.Kill() // it is not reaped yet
		_ = p.cmd.Wait()         // the error reports our signal
		p.closeSandbox()
		p.tree.Kill(p.config.Logger)
		p.drainOutput()
		return err
	}
	p.config.Opened(sockets)
	return nil
}

// translateTime bounds the translation of a pid, which takes less than a millisecond.
const translateTime = 5 * time.Second

func (p *Process) findRunner() error {
	p.tree.HostPID = func(pid int) (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), translateTime)
		defer cancel()
		return p.sandbox.HostPID(ctx, pid)
	}
	pid, err := p.tree.HostPID(p.sandbox.RunnerPID())
	if errors.Is(err, sandbox.ErrGone) || errors.Is(err, syscall.ESRCH) {
		return nil // it has exited already; run reports how
	} else if err != nil {
		return fmt.Errorf("find the interpreter in the sandbox: %w", err)
	}
	runner, _ := proctree.ReadStat(pid) // a zombie has no other use
	p.tree.Runner = runner.Process
	p.lowerPriority(runner.Process) // it has a session of its own
	if err := (proctree.Process{PID: pid}).SetOOMScore(runnerOOMScore); err != nil {
		p.config.Logger.Warn("cannot set oom_score_adj of runner", zap.Error(err))
	}
	return nil
}

func (p *Process) closeSandbox() {
	if p.sandbox != nil {
		p.sandbox.Close()
	}
}

// startCommand starts the command, confined if the configuration demands it. After an error it does not run.
func (p *Process) startCommand() error {
	if p.config.Files == nil {
		return p.cmd.Start()
	}
	return p.config.Files.Start(p.cmd)
}

// teardownTime bounds the end of a sandbox after its interpreter has exited: the kernel ends all other processes, and only
// then process 1.
const teardownTime = 3 * time.Second

// exitGrace is the time between the end of the channel and the exit of the first process, if both belong together.
func (p *Process) exitGrace() time.Duration {
	if p.sandbox != nil {
		return teardownTime
	}
	return closedGrace
}

// closedGrace lets a runner write its stacks whose descriptors the app has closed.
const closedGrace = time.Second
