package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"spacehost/internal/agent"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/nodeagent"
	"spacehost/internal/usage"
	"spacehost/internal/version"
	"spacehost/migrations"
)

// agentOptions are the flags of `spacehost agent`.
type agentOptions struct {
	state       string
	orphanAfter time.Duration
	check       bool
	node        joinOptions
	serve       func(context.Context, agent.ServeConfig) error
}

// newAgent returns the command that runs serve, or with --join joined. They are agent.Serve and nodeagent.Run except in tests.
func newAgent(serve func(context.Context, agent.ServeConfig) error, joined func(context.Context, nodeagent.Config) error) *cobra.Command {
	o := agentOptions{serve: serve, node: joinOptions{run: joined}}
	c := &cobra.Command{
		Use: "agent", Short: "Run the agent that keeps the Spaces of a host while it restarts, or makes this machine a node, until Ctrl-C",
		Long: `Run the agent of a host until Ctrl-C or SIGTERM. The agent is the parent of the Spaces' processes. When the host restarts,
crashes or is upgraded, the Spaces keep running with their loaded models, and the next host takes them over.
docs/operator-guide.md explains it in "Restart and upgrade without ending Spaces".

"spacehost serve" connects to the agent of its state folder if its file has "agent: local". If no agent answers, it starts
one, whose log is logs/agent.log in the state folder. Run this command yourself only as a service of its own, because systemd
ends every process that a service has started together with that service. The packages contain the unit:

  sudo systemctl enable --now spacehost-agent

A state folder has one agent, and an agent has one host at a time. The agent listens on agent.sock in the state folder, which
only its user can open, and writes its log to stderr, one JSON object per line.

Without a host, the agent ends each GPU call that exceeds its declared seconds. If no host connects within --orphan-after, it
ends the Spaces and exits. Ctrl-C and SIGTERM end the Spaces at once. To restart the host alone, send SIGTERM to the host.

With --join, this machine becomes a node of a front on another machine (docs/nodes.md). The agent joins once, with a token that
"spacehost node token" prints on the front, and keeps its key and certificate in the folder "node" of the state folder. Then it keeps a
connection to the front, which it dials again after 1 to 30 s whenever it ends. It builds the environments of the Spaces that the front
places here, starts their processes, and has their files in the state folder. No port of this machine is opened.

Ctrl-C and SIGTERM drain the node: no Space and no call starts here any more, and running calls may end within --drain. The Spaces
start on another node, or wait. The agent exits when nothing of them runs here any more, at most 10 s after --drain; calls that still run
then end with the reason "this machine is being given back". A second signal ends them at once. With --ends-in, or in a Slurm job with
a time limit, the drain begins by itself so early that the agent has exited before the end. While the front does not answer, the agent waits
for GPU calls only.

The agent exits if the front refuses it: the token was used or has expired, the name is taken, or the node was revoked or forgotten. If the front does not
answer, the agent logs the cause and tries again.

With --check the agent does not start. The state folder is checked.

Exit codes: 0 ended by a signal or --ends-in, or without a host for --orphan-after, 1 the agent could not run (state folder, another
agent) or the front refused it, 2 wrong usage.`,
		Example: `  spacehost agent                                   with the state folder that "serve" uses by default
  spacehost agent --state /var/lib/spacehost/state --orphan-after 1h
  spacehost agent --check                           only check the state folder
  spacehost agent --join front.lab.example:7443 --token-file token.txt --name gpu2 --label h200
  spacehost agent --join front.lab.example:7443 --token-file token.txt --ends-in 8h --drain 10m`,
		Args: usage.Args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.state, "state", "", "state folder of the host (default $XDG_STATE_HOME/spacehost)")
	f.DurationVar(&o.orphanAfter, "orphan-after", config.DefaultOrphanAfter, "time without a host after which the Spaces end and the agent exits")
	o.node.addFlags(c)
	f.BoolVar(&o.check, "check", false, "check the state folder, start nothing")
	return c
}

func (o *agentOptions) run(c *cobra.Command) error {
	if o.orphanAfter < config.MinOrphanAfter || o.orphanAfter > config.MaxOrphanAfter {
		return usage.Wrap(c, fmt.Errorf("--orphan-after must be from %s to %s, not %s", config.MinOrphanAfter, config.MaxOrphanAfter, o.orphanAfter))
	}
	if err := o.node.check(c); err != nil {
		return err
	}
	state, err := config.StateFolder(o.state)
	if err != nil {
		return usage.Wrap(c, err)
	}
	if o.check {
		if err := host.PreflightState(c.Context(), state); err != nil {
			return err
		}
		return printf(c, "An agent can use the state folder %s.", state)
	}
	ctx := c.Context()
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		hangup, stop := signal.NotifyContext(ctx, syscall.SIGHUP) // otherwise the end of a terminal would leave the Spaces without a parent
		defer stop()
		ctx = hangup
	}
	log, build := host.NewLogger(c.ErrOrStderr()).Named("agent"), version.Current(migrations.SQLiteVersion())
	if o.node.front != "" {
		log.Info("program starts", zap.String("version", build.Version), zap.String("commit", build.Commit), zap.String("state", state), zap.String("front", o.node.front), zap.Int("pid", os.Getpid()))
		return o.node.serve(ctx, c, state, log)
	}
	log.Info("program starts", zap.String("version", build.Version), zap.String("commit", build.Commit), zap.String("state", state),
		zap.Duration("orphan_after", o.orphanAfter), zap.Int("pid", os.Getpid())) // a host of a later version may connect
	var reporting sync.WaitGroup
	defer reporting.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	return o.serve(ctx, agent.ServeConfig{State: state, OrphanAfter: o.orphanAfter, Logger: log, Ready: func(running func() (int, int)) {
		reporting.Go(func() { host.ReportAgent(ctx, log, running) })
	}})
}
