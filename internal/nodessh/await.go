package nodessh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"spacehost/internal/nodes"
	"spacehost/internal/printable"
)

// pollPause is the time between two questions to the front.
const pollPause = 500 * time.Millisecond

// logTimeout bounds the reading of the agent's log after a failure.
const logTimeout = 20 * time.Second

// await waits until the front reports the node as connected. before is its state before the agent has started.
func (a *adder) await(ctx context.Context, r Result, before nodes.State) error {
	a.Report(fmt.Sprintf("waiting for the connection, at most %s", a.Timeout))
	waiting, stop := context.WithTimeout(ctx, a.Timeout)
	defer stop()
	exited := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		a.watch(waiting, r, exited)
	}()
	defer func() { stop(); <-watched }()
	for {
		state, err := a.Front.State(waiting, r.Name)
		switch {
		case err == nil && state == nodes.Connected:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && waiting.Err() == nil:
			return err
		}
		select {
		case <-exited:
			return a.failed(ctx, r, before, fmt.Sprintf("the agent on %s has exited", a.Host))
		case <-waiting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return a.failed(ctx, r, before, fmt.Sprintf("the agent on %s has not connected within %s and continues to try", a.Host, a.Timeout))
		case <-time.After(pollPause):
		}
	}
}

// watch closes exited when the agent has exited. It also returns when ctx ends or the connection of ssh does, which only means that
// nothing is known of the agent.
func (a *adder) watch(ctx context.Context, r Result, exited chan<- struct{}) {
	open, closing, err := os.Pipe() // the script runs until its stdin is closed; a pipe of io would keep exec.Cmd.Wait waiting
	if err != nil {
		return
	}
	defer open.Close()
	defer closing.Close()
	script, args := watchServiceScript, []string(nil)
	if r.Unit == "" {
		script, args = watchProcessScript, []string{a.pid}
	}
	out, err := a.on.run(ctx, open, script, args...)
	if err == nil && len(markedLines(out)) > 0 {
		close(exited)
	}
}

// failed returns the error of an agent that does not connect, with the end of its log and the next step.
func (a *adder) failed(ctx context.Context, r Result, before nodes.State, what string) error {
	ctx, stop := context.WithTimeout(ctx, logTimeout)
	defer stop()
	script, args, where := serviceLogScript, []string(nil), "journalctl -u "+r.Unit
	next := "correct /etc/spacehost/node.env there and restart the unit, or run this command again"
	if r.Unit == "" {
		script, args, where = processLogScript, []string{r.State}, path.Join(r.State, "node.log")
		next = fmt.Sprintf("end the agent if it runs (ssh %s kill %s), and run this command again", a.Host, a.pid)
	}
	if before != "" {
		next += fmt.Sprintf("; if the machine has lost its identity, run `spacehost node forget %s` before", r.Name)
	}
	log, err := a.on.run(ctx, nil, script, args...)
	if err != nil {
		log = err.Error()
	} else if _, after, ok := strings.Cut(log, mark+"log\n"); ok {
		log = after
	}
	return errors.New(what + "\n" + where + " ends with:\n" + indent(printable.Text(log)) + "Next: check that the node reaches the front, that its --gpus fit, and that the token was not used; " + next)
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		b.WriteString("  " + strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}
