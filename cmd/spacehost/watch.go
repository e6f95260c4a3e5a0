package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// watchLeases prints each change of a Lease until ctx ends, which is no error. A host that ends is one.
func watchLeases(ctx context.Context, state string, asJSON bool, out io.Writer) error {
	client := controlClient(state)
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://spacehost"+control.WatchLeases.Path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return unanswered(state, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return &refusedError{state: state, status: answer.StatusCode}
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		if asJSON {
			if _, err := fmt.Fprintln(out, data); err != nil {
				return err
			}
			continue
		}
		var c lease.Change
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
		}
		if _, err := fmt.Fprintln(out, changeLine(c)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil // Ctrl-C
	}
	return fmt.Errorf("the host on %s has ended, or this reader was too slow: %w", state, errors.Join(lines.Err(), io.EOF))
}

// changeLine is a Change in a line: when, which, what has become of it, for whom, and why.
func changeLine(c lease.Change) string {
	line := fmt.Sprintf("%s  %s  %-9s  %s  %s  %s %g s", c.At.Local().Format(time.TimeOnly), c.Lease, c.State, c.Space, c.Identity, c.Size, c.DeclaredSeconds)
	if c.Via != "" {
		line += ", via " + c.Via
	}
	if c.Slot != nil {
		line += fmt.Sprintf(", slot %d", *c.Slot)
	}
	switch {
	case c.IsFinal():
		line += fmt.Sprintf(", charged %.3f s: %s", c.ChargedSeconds, c.Reason)
	case c.State == lease.Granted:
		line += fmt.Sprintf(", waited %.1f s", c.WaitedSeconds)
	case c.State == lease.Active:
		line += fmt.Sprintf(", worker %d", c.Worker)
	}
	return line
}
