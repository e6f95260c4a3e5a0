package checkcli

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// oldestPython is the oldest release whose ast module the reader uses.
const oldestPython = 9 // 3.9

// interpreterTime bounds the start of one interpreter.
const interpreterTime = 20 * time.Second

// probe prints the minor version and the path of a Python 3, without packages and settings of the user.
var probe = []string{"-I", "-S", "-c", "import sys; print(sys.version_info[0], sys.version_info[1], sys.executable)"}

// interpreter returns the Python that parses the Space: --python, else that of its environment, whose grammar is
// the Space's, else that of the PATH. Without one it returns the reason and the next step.
func (o *options) interpreter(ctx context.Context) (python, problem string) {
	if o.config.Environment != nil && o.python == "" {
		if python := o.config.Environment(o.state, o.dir); python != "" {
			return python, ""
		}
	}
	if o.python != "" {
		python, err := try(ctx, o.python)
		if err != nil {
			return "", fmt.Sprintf("--python %s %v", o.python, err)
		}
		return python, ""
	}
	candidates := [][]string{{"python3"}, {"python"}}
	if runtime.GOOS == "windows" {
		candidates = [][]string{{"py", "-3"}, {"python"}, {"python3"}}
	}
	problem = "there is no python3 on the PATH; install Python 3.9 or newer, or name one with --python"
	for _, command := range candidates {
		path, err := exec.LookPath(command[0])
		if err != nil {
			continue
		}
		python, err := try(ctx, path, command[1:]...)
		if err == nil {
			return python, ""
		}
		problem = fmt.Sprintf("%s %v; install Python 3.9 or newer, or name one with --python", path, err)
	}
	return "", problem
}

// try starts an interpreter and returns its own path. Its error continues a sentence that begins with the command.
func try(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, interpreterTime)
	defer cancel()
	command := exec.CommandContext(ctx, path, append(args, probe...)...)
	command.WaitDelay = time.Second
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("does not start: %w", err)
	}
	var major, minor int
	var executable string
	if _, err := fmt.Sscanf(string(out), "%d %d", &major, &minor); err != nil {
		return "", fmt.Errorf("is no Python")
	}
	if parts := strings.SplitN(strings.TrimSpace(string(out)), " ", 3); len(parts) == 3 {
		executable = parts[2]
	}
	if major != 3 || minor < oldestPython {
		return "", fmt.Errorf("is Python %d.%d, and 3.%d is needed", major, minor, oldestPython)
	}
	if executable == "" {
		executable = path
	}
	return executable, nil
}
