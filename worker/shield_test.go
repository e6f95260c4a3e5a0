package worker

import (
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShieldOfAServer checks that SIGTERM does not end an app whose server has its own handler, and that the end of the start
// still reaches that handler.
func TestShieldOfAServer(t *testing.T) {
	p, r := startApp(t, "served", func(c *ProcessConfig) { c.Shield = true })
	r.await(t, "it reports its server", func(one recorded) bool { return one.Op == "server" })
	answers := func() bool {
		status, _ := askPort(t, p.config.Port, "GET", "/", p.config.Key, nil)
		return status == http.StatusOK
	}
	eventually(t, "it answers", answers)
	if err := unix.Kill(p.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
		t.Fatalf("the app has ended: %v", p.Err())
	case <-time.After(2 * time.Second): // a server that has handled the signal exits after 0.1 s
	}
	if !answers() {
		t.Error("it does not answer any more")
	}
	p.End(t.Context(), patient)
	if exit := p.Exit(); exit.Signal == unix.SIGKILL {
		t.Errorf("it has ended by %v", exit)
	}
}

// TestEndBeforeTheShield ends a start at once. Its runner has no shield yet, or receives the order after the configuration.
func TestEndBeforeTheShield(t *testing.T) {
	p, _ := startApp(t, "served", func(c *ProcessConfig) { c.Shield = true })
	p.End(t.Context(), patient)
	if exit := p.Exit(); exit.Signal != unix.SIGTERM {
		t.Errorf("it has ended by %v, want SIGTERM; it printed %q", exit, p.Tail())
	}
}
