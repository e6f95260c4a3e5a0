package nodessh

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/nodes"
)

// awaited is an agent whose process watchProcessScript watches, and a front that knows its state.
type awaited struct {
	since  time.Time
	after  time.Duration // until the front reports it as connected
	exits  time.Duration // until the script ends; 0: with its stdin
	marked bool          // the script reports an exit, and not the end of the connection
	failed error         // of the front
}

func (a *awaited) State(context.Context, string) (nodes.State, error) {
	if time.Since(a.since) >= a.after {
		return nodes.Connected, a.failed
	}
	return nodes.Joined, a.failed
}

func (a *awaited) Token(context.Context, string) (string, string, error) { return "", "", nil }

func (a *awaited) run(ctx context.Context, stdin io.Reader, script string, _ ...string) (string, error) {
	if script == processLogScript {
		return "no route to host\x1b[0m\n", nil
	}
	var end <-chan time.Time
	if a.exits > 0 {
		end = time.After(a.exits)
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-end:
		if a.marked {
			return mark + "exited\n", nil
		}
		return "", &scriptError{"gpu2", connectionFailed, "broken pipe"}
	}
}

// TestAwait checks how long Add waits for each end.
func TestAwait(t *testing.T) {
	for name, row := range map[string]struct {
		awaited
		took time.Duration
		want string
	}{
		"connected":           {awaited{after: 3 * time.Second}, 3 * time.Second, ""},
		"exited":              {awaited{after: time.Hour, exits: 1200 * time.Millisecond, marked: true}, 1200 * time.Millisecond, "the agent on gpu2 has exited\n/s/node.log ends with:\n  no route to host"},
		"the watch ends":      {awaited{after: 20 * time.Second, exits: time.Second}, 20 * time.Second, ""},
		"never":               {awaited{after: time.Hour}, time.Minute, "has not connected within 1m0s and continues to try\n"},
		"the front has ended": {awaited{after: time.Hour, failed: errors.New("no spacehost runs")}, 0, "no spacehost runs"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := row.awaited
				at.since = time.Now()
				a := adder{Config: Config{Host: "gpu2", Timeout: time.Minute, Front: &at, Report: func(string) {}}, on: &at, pid: "7"}
				err := a.await(t.Context(), Result{Name: "gpu2", State: "/s"}, nodes.Lost)
				if took := time.Since(at.since); took != row.took {
					t.Errorf("it took %s, want %s", took, row.took)
				}
				if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
					t.Errorf("got %v, want %q", err, row.want)
				}
				if err != nil && at.failed == nil && !strings.Contains(err.Error(), "(ssh gpu2 kill 7)") {
					t.Errorf("the error has no next step: %v", err)
				}
			})
		})
	}
}

// TestAwaitIsCancelled: Ctrl-C ends Add at once, and stops nothing on the machine.
func TestAwaitIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := &awaited{since: time.Now(), after: time.Hour}
		a := adder{Config: Config{Host: "gpu2", Timeout: time.Minute, Front: at, Report: func(string) {}}, on: at}
		ctx, stop := context.WithTimeout(t.Context(), 1700*time.Millisecond)
		defer stop()
		if err := a.await(ctx, Result{Name: "gpu2"}, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(at.since); took != 1700*time.Millisecond {
			t.Errorf("it took %s", took)
		}
	})
}
