package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/nodes"
	"spacehost/internal/slurm"
	"spacehost/internal/usage"
)

func newNodePools() *cobra.Command {
	return clientCommand[[]control.Pool]{
		use: "pools", short: "List the pools of jobs that become nodes, and what is wrong with them",
		long: `List the pools of the key "pools" and their jobs in Slurm. docs/nodes.md explains pools.

STATE is one of:

  pending   the job waits in Slurm; REASON is in Slurm's words
  starting  the job runs, and its agent has not connected yet
  serving   its node runs Spaces
  lost      its node does not answer
  leaving   no Space starts on its node any more; the job ends after the running calls
  ending    the job was cancelled`,
		example: "  spacehost node pools\n  spacehost node pools --json | jq -r '.[].trouble'",
		args:    cobra.NoArgs, request: fixed(control.ListPools.Request(control.NoBody{})),
		show: func(c *cobra.Command, all []control.Pool, _ []string) error {
			if len(all) == 0 {
				return printf(c, "The configuration has no pools. Next: add `pools` to the file of serve (docs/nodes.md), or see spacehost node script slurm --help")
			}
			return showPools(c, all, time.Now())
		},
	}.command()
}

// showPools prints a table of pools, one of their jobs, and what is wrong.
func showPools(c *cobra.Command, all []control.Pool, now time.Time) error {
	type row struct {
		pool string
		job  control.PoolJob
	}
	var jobs []row
	for _, p := range all {
		for _, job := range p.Jobs {
			jobs = append(jobs, row{p.Name, job})
		}
	}
	errs := []error{printTable(c, "POOL\tJOBS\tMIN\tMAX\tLISTED", all, func(p control.Pool) string {
		return fmt.Sprintf("%s\t%d\t%d\t%d\t%s", p.Name, len(p.Jobs), p.Min, p.Max, formatSeen(p.ListedAt, now))
	})}
	if len(jobs) > 0 {
		errs = append(errs, printf(c, ""), printTable(c, "POOL\tJOB\tSTATE\tSINCE\tMACHINE\tNODE\tREASON", jobs, func(r row) string {
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", r.pool, r.job.ID, r.job.State, formatAgo(r.job.Since, now), cmp.Or(r.job.Machine, "-"), cmp.Or(r.job.Node, "-"), cmp.Or(r.job.Reason, "-"))
		}))
	}
	return errors.Join(append(errs, showTroubles(c, all, now))...)
}

func showTroubles(c *cobra.Command, all []control.Pool, now time.Time) error {
	var errs []error
	for _, p := range all {
		if p.Trouble == "" {
			continue
		}
		retry := ""
		if p.RetryAt != nil && p.RetryAt.After(now) {
			retry = fmt.Sprintf(" The next job is submitted in %s at the earliest.", formatLeft(p.RetryAt.Sub(now)))
		}
		errs = append(errs, printf(c, "%s%s", p.Trouble, retry))
	}
	return errors.Join(errs...)
}

// showPoolTroubles prints what is wrong with the pools of the host of a command. A host that does not answer has answered the command before.
func showPoolTroubles(c *cobra.Command) error {
	state, err := config.StateFolder(c.Flag("state").Value.String())
	if err != nil {
		return err
	}
	all, err := answerOf[[]control.Pool](c.Context(), state, control.ListPools.Request(control.NoBody{}))
	if err != nil {
		return err
	}
	return showTroubles(c, all, time.Now())
}

func newNodeScript() *cobra.Command {
	c := &cobra.Command{Use: "script", Short: "Print the script of a batch job whose machine becomes a node"}
	c.AddCommand(newNodeScriptSlurm())
	return c
}

// scriptOptions are the flags of `spacehost node script slurm`.
type scriptOptions struct {
	config, pool string
	front        string
	tokenFile    string
	own          config.Pool
	drain, time  string
}

func newNodeScriptSlurm() *cobra.Command {
	o := scriptOptions{own: config.DefaultPool}
	c := &cobra.Command{
		Use: "slurm", Short: "Print the script of a Slurm job whose machine becomes a node",
		Long: `Print a batch script for sbatch. Its job runs "spacehost agent" with the GPUs that Slurm gives it, and drains the node before its
time limit. Nothing is submitted, and no host has to run. docs/nodes.md explains nodes in Slurm.

With --config, the script is that of a pool of this file, which a front submits by itself; only its join token is left out. Without
--config, the flags describe the job.

The token file has a token of "spacehost node token --name 'slurm-*' --uses 0 --for 30d", and mode 0600. It is in a folder that the
machines share, such as your home folder.`,
		Example: `  spacehost node script slurm --join front.lab.example:7443 --token-file ~/slurm.token --partition gpu --gres gpu:2 > node.sbatch
  sbatch node.sbatch
  spacehost node script slurm --config lab.yaml`,
		Args: usage.Args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "configuration file of serve: print the script of its pool")
	f.StringVar(&o.pool, "pool", "", "with --config: name of the pool (default: the only one)")
	f.StringVar(&o.tokenFile, "token-file", "", "path of the token file on the machines of the jobs; required without --config")
	f.StringVar(&o.front, "join", "", "address HOST:PORT of the front, as these machines reach it; required without --config")
	f.StringVar(&o.own.Name, "name", o.own.Name, "beginning of the node's name; the ID of the job follows")
	f.StringVar(&o.own.Partition, "partition", "", "partition (default: Slurm's)")
	f.StringVar(&o.own.Account, "account", "", "account (default: the user's)")
	f.StringVar(&o.own.Gres, "gres", "", "GPUs of the job, such as gpu:2")
	f.StringVar(&o.time, "time", "8h", "time limit of the job")
	f.StringVar(&o.drain, "drain", "10m", "time for running calls before the end of the job")
	f.StringSliceVar(&o.own.Labels, "label", nil, "label of the node, such as h200, may be repeated")
	f.StringVar(&o.own.GPUs, "gpus", "", "GPUs for the agent, such as mock:2xH200 (default: those of the job)")
	f.StringArrayVar(&o.own.Options, "option", nil, "further option of sbatch, such as --option=--qos=low, may be repeated")
	f.StringVar(&o.own.Program, "program", "", "path of spacehost on these machines (default: that of this program)")
	f.StringVar(&o.own.State, "folder", "", "state folder on these machines (default: /var/tmp/spacehost-UID)")
	_ = c.MarkFlagFilename("config")
	return c
}

func (o *scriptOptions) run(c *cobra.Command) error {
	pool := o.own
	var err error
	switch {
	case o.config != "":
		if pool, err = o.configured(c); err == nil && o.tokenFile == "" {
			o.tokenFile = "TOKEN_FILE"
		}
	default:
		err = o.check(c, &pool)
	}
	if err != nil {
		return err
	}
	script, err := host.PoolScript(pool, cmp.Or(o.front, "FRONT:PORT"))
	if err != nil {
		return err
	}
	script.TokenFile = o.tokenFile
	return printf(c, "%s", strings.TrimRight(script.Text(), "\n"))
}

// configured returns a pool of --config.
func (o *scriptOptions) configured(c *cobra.Command) (config.Pool, error) {
	s, warnings, err := config.Load(o.config, "")
	printWarnings(c, warnings)
	if err != nil {
		return config.Pool{}, err
	}
	var names []string
	for _, p := range s.Pools {
		if p.Name == o.pool || o.pool == "" && len(s.Pools) == 1 {
			if o.front == "" {
				o.front = host.AgentAddress(s.Cluster.Listen.Value)
			}
			return p, nil
		}
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return config.Pool{}, fmt.Errorf("%s has no `pools`; add one, or describe the job by flags", o.config)
	}
	return config.Pool{}, usage.Wrap(c, fmt.Errorf("--pool %.40q is no pool of %s; choose one of %s", o.pool, o.config, strings.Join(names, ", ")))
}

// check refuses wrong flags, and completes pool.
func (o *scriptOptions) check(c *cobra.Command, pool *config.Pool) (err error) {
	fail := func(format string, args ...any) error { return usage.Wrap(c, fmt.Errorf(format, args...)) }
	if o.pool != "" {
		return fail("--pool requires --config")
	}
	if o.front == "" || o.tokenFile == "" {
		return fail("--join and --token-file are required without --config")
	}
	if err := config.CheckFront(o.front); err != nil {
		return fail("--join: %w", err)
	}
	if err := config.CheckPoolName(pool.Name); err != nil {
		return fail("--name: %w", err)
	}
	if _, _, err := config.AgentGPUs(pool.GPUs); pool.GPUs != "" && err != nil {
		return fail("--gpus: %w", err)
	}
	for _, flag := range []struct{ name, value string }{{"program", pool.Program}, {"folder", pool.State}} {
		if err := config.CheckRemotePath(flag.value); flag.value != "" && err != nil {
			return fail("--%s: %w", flag.name, err)
		}
	}
	if err := nodes.CheckLabels(pool.Labels); err != nil {
		return fail("--label: %w", err)
	}
	for _, flag := range []struct{ name, value string }{{"partition", pool.Partition}, {"account", pool.Account}, {"gres", pool.Gres}, {"token-file", o.tokenFile}} {
		if flag.value == "" {
			continue
		}
		if err := slurm.CheckText(flag.value); err != nil {
			return fail("--%s: %w", flag.name, err)
		}
	}
	for _, option := range pool.Options {
		if err := slurm.CheckOption(option); err != nil {
			return fail("--option: %w", err)
		}
	}
	if pool.Time, err = config.ParseSpan(o.time); err != nil {
		return fail("--time: %w", err)
	}
	if pool.Drain, err = config.ParseSpan(o.drain); err != nil {
		return fail("--drain: %w", err)
	}
	if err := pool.CheckTimes(); err != nil {
		return fail("%w", err)
	}
	if o.tokenFile, err = absolute(o.tokenFile); err != nil {
		return err
	}
	return nil
}

// absolute returns a path that a job finds from its own folder.
func absolute(path string) (string, error) {
	if strings.HasPrefix(path, "/") {
		return path, nil
	}
	folder, err := os.Getwd()
	return folder + "/" + path, err
}
