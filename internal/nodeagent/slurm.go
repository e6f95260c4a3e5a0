package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// squeueTimeout bounds an answer of Slurm's controller.
const squeueTimeout = 10 * time.Second

// SlurmEnd returns a Config.Ends for the Slurm job of this process; nil: it runs in none. getenv is os.Getenv.
func SlurmEnd(getenv func(string) string) func(context.Context) (End, error) {
	job := getenv("SLURM_JOB_ID")
	if job == "" {
		return nil
	}
	why := fmt.Sprintf("job %s ends", job)
	atStart, _ := strconv.ParseInt(getenv("SLURM_JOB_END_TIME"), 10, 64) // Slurm 22.05 does not set it
	return func(ctx context.Context) (End, error) {
		ctx, cancel := context.WithTimeout(ctx, squeueTimeout)
		defer cancel()
		command := exec.CommandContext(ctx, "squeue", "-h", "-j", job, "-O", "TimeLeft")
		command.WaitDelay = time.Second
		out, err := command.Output()
		if err != nil && atStart > 0 { // the machine may have no squeue
			return End{time.Unix(atStart, 0), why}, nil
		}
		if err != nil {
			failed := (*exec.ExitError)(nil)
			if errors.As(err, &failed) && len(failed.Stderr) > 0 {
				err = fmt.Errorf("%w: %.200s", err, strings.TrimSpace(string(failed.Stderr)))
			}
			return End{}, fmt.Errorf("ask squeue for the time left of job %s: %w; give it with --ends-in", job, err)
		}
		left, limited, err := parseTimeLeft(strings.TrimSpace(string(out)))
		if err != nil || !limited {
			return End{}, err
		}
		return End{time.Now().Add(left), why}, nil
	}
}

// parseTimeLeft reads Slurm's [days-][[hours:]minutes:]seconds. limited is false for a job without a time limit.
func parseTimeLeft(text string) (left time.Duration, limited bool, err error) {
	if text == "UNLIMITED" || text == "NOT_SET" {
		return 0, false, nil
	}
	days, clock, hasDays := strings.Cut(text, "-")
	if !hasDays {
		days, clock = "0", text
	}
	d, err := strconv.ParseUint(days, 10, 16)
	parts := strings.Split(clock, ":")
	seconds := uint64(0)
	for _, part := range parts {
		n, wrong := strconv.ParseUint(part, 10, 16)
		err = errors.Join(err, wrong)
		seconds = seconds*60 + n
	}
	if err != nil || len(parts) > 3 {
		return 0, false, fmt.Errorf("squeue reports %.40q as the time left of this job; give it with --ends-in", text)
	}
	return time.Duration(d)*24*time.Hour + time.Duration(seconds)*time.Second, true, nil
}
