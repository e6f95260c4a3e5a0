package nodessh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"spacehost/internal/printable"
)

// connectionFailed is the exit code of ssh(1) if the connection fails. Other codes are those of the script.
const connectionFailed = 255

// sshDefaults are options of ssh(1) that those of the user precede, so that these count only where the user gives none.
var sshDefaults = []string{"BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15"}

// machine is a machine that ssh reaches. Its methods may be called concurrently.
type machine struct {
	host    string
	options []string // values of -o
	program string
}

// runner runs scripts on the other machine.
type runner interface {
	// run returns what the script prints to stdout. Errors: *scriptError, or the end of ctx.
	run(ctx context.Context, stdin io.Reader, script string, args ...string) (string, error)
}

// scriptError is a failed run of ssh.
type scriptError struct {
	host   string
	code   int
	output string // the last lines of stderr
}

func (e *scriptError) Error() string {
	if e.code == connectionFailed {
		return fmt.Sprintf("ssh %s: %s; check that `ssh -o BatchMode=yes %[1]s true` succeeds, and give options of ssh with --ssh-option", e.host, e.output)
	}
	return fmt.Sprintf("ssh %s: exit code %d: %s", e.host, e.code, e.output)
}

func (m machine) run(ctx context.Context, stdin io.Reader, script string, args ...string) (string, error) {
	var line []string
	for _, option := range append(m.options[:len(m.options):len(m.options)], sshDefaults...) {
		line = append(line, "-o", option)
	}
	c := exec.CommandContext(ctx, m.program, append(line, "-T", "--", m.host, remoteCommand(script, args))...)
	var stdout, stderr bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = stdin, &stdout, &stderr
	c.WaitDelay = time.Second
	err := c.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", &scriptError{m.host, exit.ExitCode(), lastLines(stderr.String(), 5)}
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // ssh has succeeded, and its ControlPersist master has our pipes
		return "", fmt.Errorf("run ssh: %w; install OpenSSH's client on this machine", err)
	}
	return stdout.String(), nil
}

// remoteCommand returns the command line for the login shell of the other machine.
func remoteCommand(script string, args []string) string {
	words := []string{"sh", "-c", quote(script), "spacehost"}
	for _, arg := range args {
		words = append(words, quote(arg))
	}
	return strings.Join(words, " ")
}

// quote quotes a word for sh, fish and csh. A word with a backslash or a line break would need another way in each of them; Config.check
// and the test of the scripts exclude both.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// lastLines returns the last n lines of a text of another machine, in one line.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(printable.Text(text)), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	if text = strings.Join(lines[max(0, len(lines)-n):], "; "); text == "" {
		return "no message"
	}
	return text
}
