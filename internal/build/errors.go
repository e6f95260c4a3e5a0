package build

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Error explains why there is no environment, for the author of the Space or the owner of the machine.
type Error struct {
	Step    string // the step that failed, as in Step.Text
	Problem string // what is wrong, naming the file or program
	Hint    string // the next step
	File    string // the requirement file of the failed step; "": none
	// Requirement is the line of File that is at fault, and Line its number; "" and 0 if the tool names none.
	Requirement string
	Line        int
	Missing     Missing  // what a build from source lacks; the zero value: nothing is known
	LogPath     string   // file with the full output of the tools; "": none
	Tail        []string // the last lines of the failed tool; empty if no tool failed
	Err         error    // the cause; may be nil
}

func (e *Error) Error() string {
	text := e.Problem + "; " + e.Hint
	if e.LogPath != "" {
		text += " (log: " + e.LogPath + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// machineError returns an Error about this machine, not about a tool: a folder, a file, a lock.
func (j *job) machineError(step string, err error) error {
	e := &Error{Step: step, Problem: fmt.Sprintf("%s failed: %v", step, err), Hint: "make " + j.dir + " a writable folder", LogPath: j.output.path, Err: err}
	if isFull(err.Error(), j.dir) {
		e.Problem, e.Hint = diskFull(j.dir)
	}
	return e
}

// minFree is less than any step needs. Some tools do not report the cause (python -m venv), so the free disk space is
// checked too.
const minFree = 4 << 20

func isFull(output, dir string) bool {
	if strings.Contains(output, "No space left on device") || strings.Contains(output, "no space left on device") {
		return true
	}
	var disk unix.Statfs_t
	return unix.Statfs(dir, &disk) == nil && disk.Bavail*uint64(disk.Bsize) < minFree
}

func diskFull(dir string) (problem, hint string) {
	return "a disk is full", "free disk space where environments (" + dir + "), caches (HOME) and temporary files (TMPDIR) are kept"
}

const tailLines = 20

// lastLines returns the end of a tool's output, without empty lines.
func lastLines(output string) []string {
	var all []string
	for line := range strings.Lines(output) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			all = append(all, line)
		}
	}
	return all[max(0, len(all)-tailLines):]
}
