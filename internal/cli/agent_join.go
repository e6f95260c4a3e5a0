package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/nodeagent"
	"spacehost/internal/nodes"
	"spacehost/internal/usage"
	"spacehost/internal/version"
	"spacehost/migrations"
)

// joinOptions are the flags of `spacehost agent` for a node.
type joinOptions struct {
	front     string
	tokenFile string
	name      string
	labels    []string
	gpus      string
	only      []string // GPUs of --gpus, by number or beginning of the UUID; nil: all
	large     string
	share     gpu.Share // parsed from large
	drain     time.Duration
	endsIn    time.Duration
	run       func(context.Context, nodeagent.Config) error
}

func (o *joinOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.front, "join", "", "address HOST:PORT of a front on another machine; this machine becomes its node (default: keep the Spaces of a host on this machine)")
	f.StringVar(&o.tokenFile, "token-file", "", "with --join: file with the token of \"spacehost node token\", or - for stdin; needed for the first connection only")
	f.StringVar(&o.name, "name", "", "with --join: name of the node (default: the first part of the host name)")
	f.StringSliceVar(&o.labels, "label", nil, "with --join: label of the node, such as h200, may be repeated")
	f.StringVar(&o.gpus, "gpus", "auto", "with --join: GPUs of this machine: auto (NVIDIA GPUs), none, numbers or beginnings of UUIDs such as 0,1, mock:2xH200, or mock:2xH200-MIG-3g.71gb for MIG instances")
	f.StringVar(&o.large, "large", "1", "with --join: share of a GPU for a call of size large: 1, 1/2 ... 1/8; xlarge gets a whole GPU")
	f.DurationVar(&o.drain, "drain", config.DefaultDrain, "with --join: time for running calls after SIGTERM or SIGINT, and before the end of --ends-in or of the Slurm job; 0: none")
	f.DurationVar(&o.endsIn, "ends-in", 0, "with --join: time until this machine is given back, counted from now (default: the end of the Slurm job if there is one, otherwise none)")
	_ = c.MarkFlagFilename("token-file")
}

// maxAgentDrain bounds --drain.
const maxAgentDrain = 24 * time.Hour

// check refuses wrong combinations and values.
func (o *joinOptions) check(c *cobra.Command) error {
	if o.front == "" {
		for _, name := range []string{"token-file", "name", "label", "gpus", "large", "drain", "ends-in"} {
			if c.Flags().Changed(name) {
				return usage.Wrap(c, fmt.Errorf("--%s requires --join", name))
			}
		}
		return nil
	}
	if o.drain < 0 || o.drain > maxAgentDrain {
		return usage.Wrap(c, fmt.Errorf("--drain must be from 0s to %s, not %s", maxAgentDrain, o.drain))
	}
	if least := o.drain + nodeagent.EndTime; c.Flags().Changed("ends-in") && o.endsIn <= least {
		return usage.Wrap(c, fmt.Errorf("--ends-in must be more than %s, which is --drain and the time for an orderly end, not %s", least, o.endsIn))
	}
	if c.Flags().Changed("orphan-after") {
		return usage.Wrap(c, errors.New("--join and --orphan-after exclude each other"))
	}
	if err := config.CheckFront(o.front); err != nil {
		return usage.Wrap(c, fmt.Errorf("--join: %w", err))
	}
	if o.name != "" {
		if err := nodes.CheckName(o.name); err != nil {
			return usage.Wrap(c, err)
		}
	}
	if err := nodes.CheckLabels(o.labels); err != nil {
		return usage.Wrap(c, err)
	}
	var err error
	if o.gpus, o.only, err = config.AgentGPUs(o.gpus); err != nil {
		return usage.Wrap(c, fmt.Errorf("--gpus: %w", err))
	}
	if o.share, err = gpu.ParseShare(o.large); err != nil {
		return usage.Wrap(c, fmt.Errorf("--large: %w", err))
	}
	return nil
}

// serve runs the agent of a node until ctx ends, and drains the node. The next signal cuts off the drain.
func (o *joinOptions) serve(ctx context.Context, c *cobra.Command, state string, log *zap.Logger) (err error) {
	computer, _ := os.Hostname() // only for the UUIDs of simulated GPUs
	service, err := host.NewNodeService(ctx, host.NodeConfig{Name: computer + state, State: state, GPUs: o.gpus, OnlyGPUs: o.only, Share: o.share, Logger: log.Named("node")})
	if err != nil {
		return err
	}
	defer service.Close()
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	ends, ended, hurry := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{}) // ends has those that Main receives, too
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(ends)
	var running sync.WaitGroup
	defer running.Wait()
	defer close(ended)
	defer stop()
	running.Go(func() { _ = service.Run(work) }) // ends with work
	running.Go(func() {
		if _, ok := awaitEnd(ctx, ends, ended); ok {
			hurryAtNext(ends, ended, func() { close(hurry) })
		}
	})
	config := nodeagent.Config{
		Front: o.front, Name: o.name, Labels: o.labels, State: state, Version: version.Current(migrations.SQLiteVersion()).Version,
		Service: service, Logger: log, Ready: func() { running.Go(func() { host.ReportAgent(work, log, service.Running) }) },
		Drain: o.drain, Ends: o.end(time.Now()), Hurry: hurry,
	}
	if o.tokenFile != "" {
		config.Token = func() (string, error) { return readTokenFile(o.tokenFile, c.InOrStdin()) }
	}
	return o.run(ctx, config)
}

// end returns how the end of this machine is found. now is the start of the command.
func (o *joinOptions) end(now time.Time) func(context.Context) (nodeagent.End, error) {
	if o.endsIn == 0 {
		return nodeagent.SlurmEnd(os.Getenv)
	}
	end := nodeagent.End{At: now.Add(o.endsIn), Why: "the time of its agent is over"}
	return func(context.Context) (nodeagent.End, error) { return end, nil }
}

// readTokenFile reads the first line of a file, or of stdin for "-".
func readTokenFile(path string, stdin io.Reader) (string, error) {
	if path == "-" {
		return readToken(stdin)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w; write the token of `spacehost node token` to it", err)
	}
	defer file.Close()
	token, err := readToken(file)
	if err == nil && strings.TrimSpace(token) == "" {
		err = fmt.Errorf("token file: %s is empty; write the token of `spacehost node token` to it", path)
	}
	return token, err
}
