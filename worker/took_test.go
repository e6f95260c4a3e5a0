package worker

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestAStartIsLoggedWithItsDuration: the log has the time until the process runs, and until the Space answers. The
// benchmark of the levels reads both.
func TestAStartIsLoggedWithItsDuration(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.Logger = zap.New(core) })
	w.ready(t)
	took := map[string]time.Duration{}
	for _, message := range []string{"space started", "space running"} {
		var lines []observer.LoggedEntry
		eventually(t, "the log has "+message, func() bool { lines = logs.FilterMessage(message).All(); return len(lines) == 1 })
		took[message], _ = lines[0].ContextMap()["took"].(time.Duration)
		if instance, _ := lines[0].ContextMap()["instance"].(string); instance == "" {
			t.Errorf("%s: the line names no instance", message)
		}
	}
	if started, running := took["space started"], took["space running"]; started <= 0 || running <= 0 {
		t.Errorf("took %v until the process ran and %v until the Space ran, want two durations", started, running)
	}
}
