package build

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Error says why there is no environment, to the person who wrote the Space or owns the machine.
type Error struct {
	Step    string   // what was being done, as in Step.Text
	Problem string   // what is wrong, naming the file or program
	Hint    string   // the next step
	LogPath string   // everything that the tools said
	Tail    []string // the last lines of the tool that failed, none where no tool did
	Err     error    // nil where nothing lies beneath
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s; %s (log: %s)", e.Problem, e.Hint, e.LogPath)
}

func (e *Error) Unwrap() error { return e.Err }

// wrong is an Error about this machine and not about a tool: a folder, a file, a lock.
func (j *job) wrong(step string, err error) error {
	e := &Error{Step: step, Problem: fmt.Sprintf("%s failed: %v", step, err), Hint: "make " + j.dir + " a folder that can be written", LogPath: j.output.path, Err: err}
	if isFull(err.Error(), j.dir) {
		e.Problem, e.Hint = full(j.dir)
	}
	return e
}

// scarce is less than any step needs. Some tools do not say why they failed (python -m venv), so the disk
// itself is asked too.
const scarce = 4 << 20

func isFull(said, dir string) bool {
	if strings.Contains(said, "No space left on device") || strings.Contains(said, "no space left on device") {
		return true
	}
	var disk unix.Statfs_t
	return unix.Statfs(dir, &disk) == nil && disk.Bavail*uint64(disk.Bsize) < scarce
}

func full(dir string) (problem, hint string) {
	return "a disk is full", "free space where environments (" + dir + "), caches (HOME) and temporary files (TMPDIR) are kept"
}

const tailLines = 20

// lastLines returns the end of what a tool said, without the empty lines.
func lastLines(output string) []string {
	var all []string
	for line := range strings.Lines(output) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			all = append(all, line)
		}
	}
	return all[max(0, len(all)-tailLines):]
}
