package build

import (
	"cmp"
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

// toolError reports a tool that ran and failed.
type toolError struct {
	tool   string
	output string // the end of the output
	err    error
}

func (e *toolError) Error() string { return fmt.Sprintf("run %s: %v", e.tool, e.err) }
func (e *toolError) Unwrap() error { return e.err }

// run runs a tool in the folder of the requirement files as the host, with its output in the log.
func (j *job) run(ctx context.Context, argv ...string) error {
	_, err := j.runTo(ctx, asHost, io.Discard, argv...)
	return err
}

// runTo also copies the tool's standard output to stdout, and returns the end of all its output. Without a Confinement
// every tool runs as the host.
func (j *job) runTo(ctx context.Context, as access, stdout io.Writer, argv ...string) (end string, err error) {
	fmt.Fprintf(j.output, "$ %s\n", strings.Join(argv, " "))
	output := &tail{log: j.output}
	tool := Tool{Argv: argv, Dir: cmp.Or(j.workDir, j.spec.Dir, j.dir), Stdout: io.MultiWriter(output, stdout), Stderr: output}
	if as == asHost || j.confinement == nil {
		err = j.runAsHost(ctx, tool)
	} else {
		err = j.runConfined(ctx, as, tool)
	}
	if _, explained := errors.AsType[*Error](err); err != nil && !explained {
		err = &toolError{tool: argv[0], output: string(output.kept), err: err}
	}
	return string(output.kept), err
}

// runAsHost runs a tool that runs no code of the Space, or every tool if there is no Confinement.
func (j *job) runAsHost(ctx context.Context, tool Tool) error {
	cmd := command(ctx, tool.Argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = tool.Dir, tool.Stdout, tool.Stderr
	cmd.Env = append(cmd.Env, j.variables...)
	if cache := j.cacheDir(); cache != "" {
		cmd.Env = append(cmd.Env, "UV_CACHE_DIR="+cache)
	}
	for _, l := range j.locks {
		cmd.ExtraFiles = append(cmd.ExtraFiles, l.file)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return WaitGroup(ctx, cmd)
}

// command returns a tool that runs as the host.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := GroupCommand(ctx, argv...)
	cmd.Env = toolEnv(os.Environ())
	return cmd
}

// GroupCommand returns a command in its own process group, which is killed as a whole when ctx ends: killing only uv or
// pip leaves their compilers running. Use WaitGroup to wait for it.
func GroupCommand(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			return err // reaped: the group id may belong to another process by now
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	return cmd
}

// WaitGroup waits for a started GroupCommand, and for its whole group if ctx has ended.
func WaitGroup(ctx context.Context, cmd *exec.Cmd) error {
	err := cmd.Wait()
	if ctx.Err() != nil {
		awaitGroup(cmd)
	}
	if errors.Is(err, exec.ErrWaitDelay) { // the tool has exited, but its daemon holds the pipe
		return nil
	}
	return err
}

// awaitGroup waits until no process of a killed group can still write into the environment, which is then removed.
// The wait is bounded, since a zombie that is never reaped counts as running.
func awaitGroup(cmd *exec.Cmd) {
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for range 100 {
		if errors.Is(syscall.Kill(-cmd.Process.Pid, 0), syscall.ESRCH) {
			return
		}
		<-retry.C
	}
}

// allowedVariables are the host's variables that tools may see; a name that ends in * is a prefix. All others are
// removed: a setup.py is untrusted code, and the host's environment contains tokens.
var allowedVariables = []string{
	"PATH", "HOME", "LANG", "LC_*", "TMPDIR", "LD_LIBRARY_PATH",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
	"PIP_*", "UV_*", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "PYENV_ROOT", "PYENV_VERSION",
	"CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME", "MAX_JOBS", // for packages that are compiled
}

// fixedVariables override variables that would install packages elsewhere, prompt for input, or make the output
// unreadable. UV_LINK_MODE: by default uv makes hard links into its cache where the file system has no reflinks
// (astral-sh/uv, crates/uv-fs/src/link.rs). A Space that writes to a file of its environment would then change that file
// in every environment of this user. A copy still shares blocks on file systems with reflinks: copy_file_range(2).
var fixedVariables = []string{
	"PIP_USER=0", "PIP_NO_INPUT=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_REQUIRE_VIRTUALENV=0", "PIP_PROGRESS_BAR=off",
	"UV_PYTHON_DOWNLOADS=never", "UV_LINK_MODE=copy", "UV_NO_PROGRESS=1", "NO_COLOR=1",
	"GIT_TERMINAL_PROMPT=0", "GRADIO_ANALYTICS_ENABLED=False",
}

var deniedVariables = []string{"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX"}

func toolEnv(host []string) []string {
	var env []string
	for _, variable := range host {
		name, _, _ := strings.Cut(variable, "=")
		if isIn(name, allowedVariables) && !slices.Contains(deniedVariables, name) {
			env = append(env, variable)
		}
	}
	return append(env, fixedVariables...) // of two equal names the last has effect
}

// isIn reports whether a list of names, or of prefixes that end in *, contains name.
func isIn(name string, list []string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		prefix, isPrefix := strings.CutSuffix(p, "*")
		return name == p || isPrefix && strings.HasPrefix(name, prefix)
	})
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
