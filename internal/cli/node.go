package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/nodes"
)

func newNode() *cobra.Command {
	c := clientCommand[[]control.Node]{
		use: "node", short: "List the nodes of a running front and the state of their connections",
		long: `List the nodes of the running host, which is their front: other machines whose agents have joined with "spacehost agent
--join". docs/nodes.md explains how a machine joins.

STATE is one of:

  joined     its agent has not connected yet
  connected  beats arrive each second
  suspect    no beat for 3 s, or the connection has just ended
  lost       no beat for 15 s
  revoked    refused for good

"leaves in" is the time that is left until the machine of the node is given back: its agent was stopped, or its job ends. Its Spaces end
after their running calls, and start on another node.

RTT is the round trip time of the connection, and SEEN is when the last beat arrived. LEASES counts the GPU calls that wait for the
node or run on it. "spacehost space list" shows which Spaces run on it; the key "on" of a Space names the nodes that may run it.`,
		example: "  spacehost node\n  spacehost node --json | jq '.[] | select(.state != \"connected\")'\n  spacehost node add gpu2",
		args:    cobra.NoArgs, request: fixed(control.ListNodes.Request(control.NoBody{})),
		show: func(c *cobra.Command, all []control.Node, _ []string) error {
			if len(all) == 0 {
				return errors.Join(printf(c, "No nodes have joined. Next: spacehost node token"), showPoolTroubles(c))
			}
			now := time.Now()
			return errors.Join(printTable(c, "NODE\tSTATE\tGPUS\tLEASES\tRTT\tVERSION\tSEEN", all, func(n control.Node) string {
				return fmt.Sprintf("%s\t%s\t%d\t%d\t%s\t%s\t%s", n.Name, nodeState(n, now), n.GPUs, n.Leases, formatRTT(n.RTTSeconds), cmp.Or(n.Version, "-"), formatSeen(n.SeenAt, now))
			}), showPoolTroubles(c))
		},
	}.command()
	c.AddCommand(newNodeAdd(), newNodeToken(), newNodeDrain(), newNodeReturn(), newNodeRevoke(), newNodeForget(), newNodeExplain(), newNodePools(), newNodeScript())
	return c
}

// nodeState describes the state of a node, its drain and its end.
func nodeState(n control.Node, now time.Time) string {
	text := n.State
	if n.Drained != nil {
		text += ", drained: " + n.Drained.Reason
	}
	if n.Leaves != nil && n.Leaves.At.After(now) {
		text += fmt.Sprintf(", leaves in %s: %s", formatLeft(n.Leaves.At.Sub(now)), n.Leaves.Why)
	} else if n.Leaves != nil {
		text += ", left: " + n.Leaves.Why
	}
	return text
}

// formatLeft formats a time to the minute, and one below two minutes to the second.
func formatLeft(left time.Duration) string {
	switch {
	case left < 2*time.Minute:
		return fmt.Sprintf("%d s", left/time.Second)
	case left < 2*time.Hour:
		return fmt.Sprintf("%d min", left/time.Minute)
	}
	return fmt.Sprintf("%d h %d min", left/time.Hour, left%time.Hour/time.Minute)
}

func formatRTT(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return strconv.FormatFloat(seconds*1000, 'f', 1, 64) + " ms"
}

func formatSeen(at *time.Time, now time.Time) string {
	if at == nil {
		return "never"
	}
	return formatAgo(*at, now)
}

func newNodeToken() *cobra.Command {
	var request control.JoinTokenRequest
	var life string
	uses := control.DefaultJoinUses
	return clientCommand[control.JoinToken]{
		use: "token", short: "Create a token with which an agent joins, and show it once",
		long: `Create a join token, and show it once. Only the token goes to stdout; the command line for the other machine goes to stderr.
The token contains the fingerprint of the front's key, so that the agent recognizes the front.

--name limits the token to one name, or with a * at its end to names with that prefix. --uses is how many nodes may join with it;
0 is any number, for machines that a scheduler starts.`,
		example: `  spacehost node token --name gpu2
  spacehost node token --name 'slurm-*' --uses 0 --for 30d
  spacehost node token > token.txt        then on the node: spacehost agent --join FRONT:7443 --token-file token.txt`,
		args: cobra.NoArgs,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&request.Names, "name", "", "name of the node, or a prefix and * (default: any name)")
			c.Flags().StringVar(&life, "for", "1h", "life of the token, such as 10m or 30d")
			c.Flags().IntVar(&uses, "uses", uses, "number of nodes that may join with it; 0: any number")
		},
		request: func([]string, int) (control.Request, error) {
			span, err := config.ParseSpan(life)
			if err != nil || span < time.Second || span > nodes.MaxLife {
				return control.Request{}, fmt.Errorf("--for %.40q is not a time from 1s to %dd; give one such as 10m or 30d", life, nodes.MaxLife/(24*time.Hour))
			}
			if uses < 0 || uses > nodes.MaxUses {
				return control.Request{}, fmt.Errorf("--uses must be from 0 (any number) to %d, not %d", nodes.MaxUses, uses)
			}
			request.Uses, request.Seconds = &uses, new(span.Seconds())
			return control.CreateJoinToken.Request(request), nil
		},
		show: showJoinToken,
	}.command()
}

func showJoinToken(c *cobra.Command, t control.JoinToken, _ []string) error {
	if err := printf(c, "%s", t.Text); err != nil {
		return err
	}
	name := ""
	if !strings.HasSuffix(t.Names, "*") {
		name = " --name " + t.Names
	}
	uses := "once"
	switch {
	case t.Uses == 0:
		uses = "any number of times"
	case t.Uses > 1:
		uses = fmt.Sprintf("%d times", t.Uses)
	}
	_, err := fmt.Fprintf(c.ErrOrStderr(), "Shown this once (ID %s), valid %s until %s. On the node, write it to a file that only its user can read, and run:\n  spacehost agent --join %s --token-file FILE%s\n",
		t.ID, uses, formatMinute(&t.ExpiresAt, ""), t.Front, name)
	return err
}

// nodeCommand is a command that changes one node and confirms it with a sentence.
func nodeCommand(use, short, long, example string, at control.Endpoint[control.NoBody, control.Node], done string) *cobra.Command {
	return clientCommand[control.Node]{
		use: use, short: short, long: long, example: example,
		complete: completeNode,
		args:     cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return at.Request(control.NoBody{}, args[0]), nil
		},
		show: func(c *cobra.Command, n control.Node, _ []string) error { return printf(c, done, n.Name) },
	}.command()
}

func newNodeDrain() *cobra.Command {
	var request control.DrainNodeRequest
	return clientCommand[control.Node]{
		use: "drain NAME", short: "Take a node out of service; it stays connected",
		complete: completeNode,
		long: `Take a node out of service until "spacehost node return", across starts of the front and of its agent. The node stays
connected, and open leases on it finish. "spacehost node" shows the reason. Another drain replaces the reason.`,
		example: "  spacehost node drain gpu2 --reason \"new fan\"",
		args:    cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&request.Reason, "reason", "", "reason that \"spacehost node\" shows")
		},
		request: func(args []string, _ int) (control.Request, error) {
			return control.DrainNode.Request(request, args[0]), nil
		},
		show: func(c *cobra.Command, n control.Node, _ []string) error {
			return printf(c, "%s is drained until `spacehost node return %[1]s`", n.Name)
		},
	}.command()
}

func newNodeReturn() *cobra.Command {
	return nodeCommand("return NAME", "Put a drained node back into service",
		"Put a drained node back into service. Nothing changes for a node that is not drained.",
		"  spacehost node return gpu2", control.ReturnNode, "%s is back in service")
}

func newNodeRevoke() *cobra.Command {
	return nodeCommand("revoke NAME", "End the connection of a node at once, and refuse it for good",
		`End the connection of a node at once, and refuse its agent from now on. Use it for a machine that was stolen, taken over or
given away. The name stays in the list until "spacehost node forget".`,
		"  spacehost node revoke gpu2", control.RevokeNode, "%s is revoked: its agent is refused from now on")
}

func newNodeForget() *cobra.Command {
	return nodeCommand("forget NAME", "Remove a node without open leases, so that its name is free again",
		`Remove a node, so that its name is free again. A connected node is disconnected, and its agent is refused. While the node
has open leases, the command is refused.`,
		"  spacehost node forget gpu2", control.ForgetNode, "%s is forgotten: a machine may join under this name with a new token")
}

func newNodeExplain() *cobra.Command {
	return clientCommand[control.NodeExplanation]{
		use: "explain NAME", short: "Explain why no Space can start on a node, and list those that run on it",
		complete: completeNode,
		long:     "Explain in sentences why no Space can start on a node, and what to do about it. List the Spaces that run on it.",
		example:  "  spacehost node explain gpu2\n  spacehost node explain gpu2 --json | jq -r '.reasons[]'",
		args:     cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.ExplainNode.Request(control.NoBody{}, args[0]), nil
		},
		show: func(c *cobra.Command, e control.NodeExplanation, _ []string) error {
			var errs []error
			errs = append(errs, printf(c, "%s: %s", e.Node.Name, nodeState(e.Node, time.Now())))
			for _, line := range append(e.Reasons, e.Notes...) {
				errs = append(errs, printf(c, "- %s", line))
			}
			return errors.Join(errs...)
		},
	}.command()
}
