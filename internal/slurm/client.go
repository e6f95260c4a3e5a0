package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"

	"spacehost/internal/lazyregexp"
)

// State is what matters of the state of a job.
type State string

// The States.
const (
	Pending State = "pending"
	Running State = "running" // it has a machine
	Ending  State = "ending"  // its processes are being ended
	Ended   State = "ended"
)

// Job is a job as squeue lists it.
type Job struct {
	ID      string
	State   State
	Word    string // the state in Slurm's words, such as FAILED
	Machine string // in Slurm's words; empty while it is pending
	Reason  string // why it is pending, or how it has ended, in Slurm's words; None: there is none
}

// CommandError is a failed command of Slurm.
type CommandError struct {
	Command string // such as sbatch
	Err     error
	Output  string // of stderr: its last line, which has the cause
}

func (e *CommandError) Error() string {
	if errors.Is(e.Err, exec.ErrNotFound) {
		return e.Command + " is not installed on this machine; install the client commands of Slurm, or remove the pool"
	}
	if e.Output == "" {
		return fmt.Sprintf("%s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Command, e.Output)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Client runs the commands of Slurm that are in PATH. The zero value is ready. Its methods may be called concurrently.
type Client struct{}

// commandTimeout bounds one command. slurmctld that is busy with other users answers after some seconds.
const commandTimeout = 30 * time.Second

// Submit submits a script, which sbatch reads from stdin, and returns the ID of the job. Errors: *CommandError.
func (Client) Submit(ctx context.Context, script string) (id string, err error) {
	out, err := run(ctx, script, "sbatch", "--parsable")
	if err != nil {
		return "", err
	}
	id, _, _ = strings.Cut(strings.TrimSpace(out), ";") // ID;CLUSTER with several clusters
	if !jobID.MatchString(id) {
		return "", &CommandError{"sbatch", fmt.Errorf("the answer %.60q is not the ID of a job", out), ""}
	}
	return id, nil
}

var jobID = lazyregexp.New(`^[0-9]+$`)

// Jobs lists the jobs of this user with a name, and those that have ended in the last minutes. Errors: *CommandError.
func (Client) Jobs(ctx context.Context, name string) ([]Job, error) {
	// The JSON of squeue needs a plugin, and differs between releases of Slurm. This format is the same in all.
	out, err := run(ctx, "", "squeue", "--noheader", "--states=all", "--user="+strconv.Itoa(os.Getuid()), "--name="+name, "--format=%i|%T|%N|%r")
	if err != nil {
		return nil, err
	}
	var all []Job
	for line := range strings.Lines(out) {
		fields := strings.SplitN(strings.TrimRight(line, " \n"), "|", 4)
		if len(fields) != 4 || !jobID.MatchString(fields[0]) {
			return nil, &CommandError{"squeue", fmt.Errorf("the line %.100q is not understood", line), ""}
		}
		all = append(all, Job{fields[0], parseState(fields[1]), fields[1], fields[2], fields[3]})
	}
	return all, nil
}

// parseState maps the states of squeue (man squeue, JOB STATE CODES). A state of a later release counts as running, so that its job is
// not submitted twice.
func parseState(word string) State {
	switch word {
	case "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT":
		return Pending
	case "COMPLETING":
		return Ending
	case "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT":
		return Ended
	}
	return Running
}

// Cancel cancels a job. It is no error if the job has ended. Errors: *CommandError.
func (Client) Cancel(ctx context.Context, id string) error {
	_, err := run(ctx, "", "scancel", "--quiet", id)
	return err
}

// run runs one command without a shell and with few variables: sbatch passes those of its caller on to the job, and those of a front may
// be secrets.
func run(ctx context.Context, stdin, name string, args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = environment(os.Environ())
	c.Dir = "/" // the job begins in this folder, which each machine has
	c.Stdin = strings.NewReader(stdin)
	c.WaitDelay = time.Second
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", &CommandError{name, err, strings.TrimPrefix(lastLine(errs.String()), name+": ")}
	}
	return out.String(), nil
}

// passed are the variables that the commands and the job get: without secrets, and enough to find Slurm and the folders of the user.
var passed = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "SLURM_CONF", "SLURM_CLUSTERS"}

func environment(all []string) (kept []string) {
	for _, name := range passed {
		for _, variable := range all {
			if strings.HasPrefix(variable, name+"=") {
				kept = append(kept, variable)
			}
		}
	}
	return kept
}

// maxOutput bounds what an error quotes of a command.
const maxOutput = 300

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	last := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.TrimSpace(lines[len(lines)-1]))
	if len(last) > maxOutput {
		last = strings.ToValidUTF8(last[:maxOutput], "")
	}
	return last
}
