package slurm

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Script describes the batch script of a pilot job. Values are quoted where the script needs it.
type Script struct {
	JobName   string
	Node      string // name of the node, before a hyphen and the ID of the job
	Partition string // empty: that of the user
	Account   string // empty: that of the user
	Gres      string // such as gpu:2; empty: none, or in Options
	Options   []string
	Time      time.Duration // limit of the job, in whole minutes
	Drain     time.Duration // how long running calls may take at the end of the job
	Front     string        // HOST:PORT
	Token     string        // join token, which becomes part of the script; empty: TokenFile
	TokenFile string        // path on the machine of the job
	Program   string        // path of spacehost there, or its name in PATH
	State     string        // folder on the machine of the job; empty: defaultState
	GPUs      string        // --gpus of the agent; empty: those that Slurm has given to the job
	Labels    []string
}

// defaultState is the folder on the machine of a job that has environments, logs, and the folders of jobs. It is not in /tmp, which is
// memory on many clusters.
const defaultState = "/var/tmp/spacehost-$(id -u)"

// LogOf returns where the log of a job is on its machine, for the operator.
func (s Script) LogOf(job string) string { return path.Join(s.stateText(), "logs", job+".log") }

func (s Script) stateText() string {
	if s.State == "" {
		return strings.ReplaceAll(defaultState, "$(id -u)", "UID")
	}
	return s.State
}

// signalMargin is added to Drain: Slurm sends the signal at most a minute early, and the agent needs a moment after its drain.
const signalMargin = 30 * time.Second

// directives returns the options of sbatch for the script, without those of Options.
func (s Script) directives() []string {
	all := []string{"--job-name=" + s.JobName}
	for _, option := range []struct{ name, value string }{{"partition", s.Partition}, {"account", s.Account}, {"gres", s.Gres}} {
		if option.value != "" {
			all = append(all, "--"+option.name+"="+option.value)
		}
	}
	return append(all, "--nodes=1", "--ntasks=1", fmt.Sprintf("--time=%d", int(s.Time.Minutes())),
		fmt.Sprintf("--signal=B:TERM@%d", int((s.Drain+signalMargin).Seconds())), "--no-requeue", "--output=/dev/null")
}

// Text returns the script. With Token, only its user and the administrators of Slurm may read it: Slurm keeps it in folders of their own.
func (s Script) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("#!/bin/bash")
	line("# Pilot job of spacehost: it lends its GPUs to the Spaces of a front until it ends.")
	for _, option := range slices.Concat(s.directives(), s.Options) {
		line("#SBATCH %s", quoteDirective(option))
	}
	state := `"` + defaultState + `"`
	if s.State != "" {
		state = quote(s.State)
	}
	line("set -eu")
	line("umask 077")
	line("root=%s", state)
	line(`mkdir -p "$root"`)
	line(`if [ -L "$root" ] || [ ! -O "$root" ]; then`)
	line(`  echo "$root belongs to another user; choose another state folder" >&2`)
	line("  exit 1")
	line("fi")
	line(`mkdir -p "$root/logs" "$root/jobs" "$root/environments"`)
	line(`exec >>"$root/logs/$SLURM_JOB_ID.log" 2>&1`)
	line("# Remove the folders of jobs that have ended here. A running agent holds the lock of its folder.")
	line(`find "$root/jobs" -mindepth 3 -maxdepth 3 -path '*/node/lock' -mmin +10 2>/dev/null | while IFS= read -r lock; do`)
	line(`  job=${lock%%/node/lock}`)
	line(`  flock --nonblock "$lock" sh -c 'chmod -R u+rwX "$1"; rm -rf "$1"' sh "$job" || true`)
	line("done")
	line(`find "$root/logs" -name '*.log' -mtime +30 -delete || true`)
	line(`export SPACEHOST_ENVIRONMENTS="$root/environments" # later jobs on this machine use them again`)
	if s.Token == "" {
		line("exec %s", s.agent(quote(s.TokenFile)))
		return b.String()
	}
	line("exec %s <<'TOKEN'", s.agent("-"))
	line("%s", s.Token)
	line("TOKEN")
	return b.String()
}

// agent returns the command line of the agent.
func (s Script) agent(tokenFile string) string {
	gpus := `"${CUDA_VISIBLE_DEVICES:-auto}"`
	if s.GPUs != "" {
		gpus = quote(s.GPUs)
	}
	words := []string{quote(s.Program), "agent", "--join", quote(s.Front), "--token-file", tokenFile, "--name", quote(s.Node) + `-"$SLURM_JOB_ID"`}
	for _, label := range s.Labels {
		words = append(words, "--label", quote(label))
	}
	words = append(words, "--gpus", gpus, "--state", `"$root/jobs/$SLURM_JOB_ID"`, "--drain", fmt.Sprintf("%ds", int(s.Drain.Seconds())))
	return strings.Join(words, " ")
}

// quote returns a word of the shell.
func quote(text string) string {
	if text != "" && !strings.ContainsFunc(text, needsQuotes) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func needsQuotes(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:@%+,=", r)
}

// quoteDirective returns an option as a line of #SBATCH, which has quotes and comments like the shell. CheckOption refuses quotes in it.
func quoteDirective(option string) string {
	if strings.ContainsAny(option, " #") {
		return `"` + option + `"`
	}
	return option
}
