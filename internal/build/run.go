package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// toolError is a tool that ran and failed.
type toolError struct {
	tool   string
	output string // the end of it
	err    error
}

func (e *toolError) Error() string { return fmt.Sprintf("run %s: %v", e.tool, e.err) }
func (e *toolError) Unwrap() error { return e.err }

// run runs a tool in the Space's folder, to which requirement files are relative, with its output in the log.
func (j *job) run(ctx context.Context, argv ...string) error {
	return j.runTo(ctx, io.Discard, argv...)
}

// runTo also copies the tool's standard output to stdout.
func (j *job) runTo(ctx context.Context, stdout io.Writer, argv ...string) error {
	fmt.Fprintf(j.output, "$ %s\n", strings.Join(argv, " "))
	said := &tail{log: j.output}
	cmd := command(ctx, argv...)
	cmd.Dir = orElse(j.spec.Dir, j.dir)
	cmd.Stderr = said
	cmd.Stdout = io.MultiWriter(said, stdout)
	for _, l := range j.held {
		cmd.ExtraFiles = append(cmd.ExtraFiles, l.file)
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		awaitGroup(cmd)
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // it is done, and a daemon of its holds the pipe
		return nil
	}
	return &toolError{tool: argv[0], output: string(said.kept), err: err}
}

// command is a tool in a process group of its own, which dies as a whole with ctx: killing uv or pip alone
// leaves the compilers that they started.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = toolEnv(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return err // reaped: the group's number may be somebody else's by now
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	return cmd
}

// awaitGroup waits until nobody of a killed group is left who could still write into the environment that
// is about to be removed. Bounded, since a zombie that nobody reaps counts as alive.
func awaitGroup(cmd *exec.Cmd) {
	if cmd.Process == nil {
		return
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for range 100 {
		if errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH) {
			return
		}
		<-again.C
	}
}

// passed are the variables of the host that tools may see; of those that end in * all that begin so.
// The rest stays out: a setup.py is a stranger's code, and the host's environment has tokens in it.
var passed = []string{
	"PATH", "HOME", "LANG", "LC_*", "TMPDIR", "LD_LIBRARY_PATH",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
	"PIP_*", "UV_*", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "PYENV_ROOT", "PYENV_VERSION",
	"CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME", "MAX_JOBS", // what packages are compiled with
}

// settled are the variables that would send packages elsewhere, ask a person who is not there, or make
// the output unreadable.
var settled = []string{
	"PIP_USER=0", "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_REQUIRE_VIRTUALENV=0", "PIP_PROGRESS_BAR=off",
	"UV_PYTHON_DOWNLOADS=never", "UV_NO_PROGRESS=1", "NO_COLOR=1",
	"GIT_TERMINAL_PROMPT=0", "GRADIO_ANALYTICS_ENABLED=False",
}

var dropped = []string{"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX"}

func toolEnv(host []string) []string {
	var env []string
	for _, variable := range host {
		name, _, _ := strings.Cut(variable, "=")
		if isPassed(name) && !slices.Contains(dropped, name) {
			env = append(env, variable)
		}
	}
	return append(env, settled...) // the last of two equal names counts
}

func isPassed(name string) bool {
	return slices.ContainsFunc(passed, func(p string) bool {
		begin, open := strings.CutSuffix(p, "*")
		return name == p || open && strings.HasPrefix(name, begin)
	})
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
