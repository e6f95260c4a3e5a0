package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/nodes"
	"spacehost/internal/nodessh"
	"spacehost/internal/usage"
	"spacehost/internal/version"
	"spacehost/migrations"
)

// The bounds of --timeout.
const (
	defaultAddTimeout = 2 * time.Minute
	minAddTimeout     = time.Second
	maxAddTimeout     = time.Hour
)

func newNodeAdd() *cobra.Command {
	var state string
	var asJSON, copies bool
	var o nodessh.Config
	c := &cobra.Command{
		Use: "add HOST", Short: "Set up the agent of a new node by ssh, and wait until it is connected",
		Long: `Set up another machine as a node of the running host, by ssh: look at the machine, create a join token for it, write the token to a
file there that only its user can read, start the agent, and wait until it is connected.

HOST is what "ssh HOST" takes. ssh must need no password (a key, or an agent of keys), and must know the key of the machine. Give its
options with --ssh-option, or in ~/.ssh/config.

The machine needs spacehost of this version. --copy copies this program to ~/.local/share/spacehost there if it is missing. What Spaces
need beside it is reported by "spacehost doctor" on the machine.

How the agent runs:

  as spacehost-node.service  if the package of this version is installed there, and "sudo -n" works without a password. It starts
                             with the machine. Settings: /etc/spacehost/node.env; log: journalctl -u spacehost-node
  as a process of the user   otherwise, in the state folder ~/.local/state/spacehost-NAME, with node.log and node.pid. It does not start
                             with the machine: repeat the command after a reboot

The agent dials the front at the address of its key "cluster", or at --address. If the node cannot reach that port, keep a tunnel open
and name its end on the node:

  ssh -N -R 7443:127.0.0.1:7443 gpu2 &
  spacehost node add gpu2 --address 127.0.0.1:7443

A node that has joined and is lost needs no new token: the command starts its agent again.

Exit codes: 0 connected, 1 not connected (the error has the end of the agent's log), 2 wrong usage.`,
		Example: `  spacehost node add gpu2
  spacehost node add ada@gpu2.lab.example --name gpu2 --label h200 --copy
  spacehost node add gpu2 --ssh-option Port=2222 --ssh-option IdentityFile=~/.ssh/lab --json`,
		Args: usage.Args(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "name of the node (default: the first part of the machine's host name)")
	f.StringSliceVar(&o.Labels, "label", nil, "label of the node, such as h200, may be repeated")
	f.StringVar(&o.GPUs, "gpus", "auto", "GPUs of the node: auto (NVIDIA GPUs), none, or simulated ones such as mock:2xH200")
	f.StringVar(&o.Address, "address", "", "address HOST:PORT of the front as the node reaches it (default: that of the key \"cluster\")")
	f.BoolVar(&copies, "copy", false, "copy this program if the machine has no spacehost of this version")
	f.StringArrayVar(&o.Options, "ssh-option", nil, "option of ssh, such as Port=2222, as after its -o; may be repeated")
	f.StringVar(&o.State, "node-state", "", "state folder on the node, an absolute path; the agent then runs as a process (default: see above)")
	f.DurationVar(&o.Timeout, "timeout", defaultAddTimeout, "maximum time until the node is connected")
	f.BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Host = args[0]
		if err := checkNodeAdd(&o); err != nil {
			return usage.Wrap(c, err)
		}
		dir, err := config.StateFolder(state)
		if err != nil {
			return err
		}
		if copies {
			if o.Copy, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w; leave out --copy", err)
			}
		}
		o.Build, o.Front = version.Current(migrations.SQLiteVersion()), frontOf(dir)
		o.Report = func(step string) { fmt.Fprintln(c.ErrOrStderr(), step) }
		added, err := nodessh.Add(c.Context(), o)
		if wrong := (*nodessh.UsageError)(nil); errors.As(err, &wrong) {
			return usage.Wrap(c, err)
		}
		if err != nil {
			return err
		}
		return showAdded(c, added, asJSON)
	}
	return c
}

// checkNodeAdd refuses values that the agent or the command cannot use, before anything is done.
func checkNodeAdd(o *nodessh.Config) error {
	if o.Name != "" {
		if err := nodes.CheckName(o.Name); err != nil {
			return err
		}
	}
	if err := nodes.CheckLabels(o.Labels); err != nil {
		return err
	}
	if _, _, err := config.AgentGPUs(o.GPUs); err != nil {
		return fmt.Errorf("--gpus: %w", err)
	}
	if o.Address != "" {
		if err := config.CheckFront(o.Address); err != nil {
			return fmt.Errorf("--address: %w", err)
		}
	}
	if o.Timeout < minAddTimeout || o.Timeout > maxAddTimeout {
		return fmt.Errorf("--timeout must be from %s to %s, not %s", minAddTimeout, maxAddTimeout, o.Timeout)
	}
	return nil
}

func showAdded(c *cobra.Command, added nodessh.Result, asJSON bool) error {
	if asJSON {
		text, err := json.Marshal(added)
		if err != nil {
			return err
		}
		return printf(c, "%s", text)
	}
	how := "process, state folder " + added.State
	if added.Unit != "" {
		how = added.Unit
	}
	return printf(c, "%s is connected (%s). `spacehost node explain %[1]s` reports what is missing there. Next: give a Space the key `on: %[1]s`, and run `spacehost reload`.", added.Name, how)
}

// frontOf is the host on a state folder, as the front of a new node.
type frontOf string

// State implements nodessh.Front.
func (f frontOf) State(ctx context.Context, name string) (nodes.State, error) {
	all, err := answerOf[[]control.Node](ctx, string(f), control.ListNodes.Request(control.NoBody{}))
	if err != nil {
		return "", err
	}
	for _, n := range all {
		if n.Name == name {
			return nodes.State(n.State), nil
		}
	}
	return "", nil
}

// Token implements nodessh.Front.
func (f frontOf) Token(ctx context.Context, name string) (token, address string, err error) {
	uses := control.DefaultJoinUses
	made, err := answerOf[control.JoinToken](ctx, string(f), control.CreateJoinToken.Request(control.JoinTokenRequest{Names: name, Uses: &uses}))
	return made.Text, made.Front, err
}
