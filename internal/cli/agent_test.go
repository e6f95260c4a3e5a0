package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/agent"
	"spacehost/internal/nodeagent"
	"spacehost/internal/usage"
)

// runAgent runs `spacehost agent` with another Serve. root prints no error; the caller has it.
func runAgent(ctx context.Context, serve func(context.Context, agent.ServeConfig) error, args ...string) (stderr string, err error) {
	root := usage.Root(&cobra.Command{Use: "spacehost"})
	root.AddCommand(newAgent(serve, func(context.Context, nodeagent.Config) error { return errors.New("a node is started") }))
	var errout bytes.Buffer
	root.SetArgs(append([]string{"agent"}, args...))
	root.SetOut(&errout)
	root.SetErr(&errout)
	err = root.ExecuteContext(ctx)
	return errout.String(), err
}

// TestAgentServes checks what the agent gets from the command line, its log, and what a service manager is told.
func TestAgentServes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	state := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var got agent.ServeConfig
	text, err := runAgent(ctx, func(ctx context.Context, c agent.ServeConfig) error {
		got = c
		c.Ready(func() (processes, leases int) { return 3, 1 })
		c.Logger.Info("from the agent")
		stop() // SIGTERM
		<-ctx.Done()
		return nil
	}, "--state", state, "--orphan-after", "90s")
	if err != nil || exitCode(err) != 0 {
		t.Fatalf("got %v: %s", err, text)
	}
	if got.State != state || got.OrphanAfter != 90*time.Second {
		t.Errorf("the agent serves %s for %s, want %s for 1m30s", got.State, got.OrphanAfter, state)
	}
	var messages []string
	for line := range strings.Lines(text) {
		var entry struct{ Level, Msg, Logger, State string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level != "info" || entry.Logger != "agent" {
			t.Errorf("line %q: %v", line, err)
		}
		if messages = append(messages, entry.Msg); len(messages) == 1 && entry.State != state {
			t.Errorf("the first line has state %q, want %s", entry.State, state)
		}
	}
	if got, want := strings.Join(messages, ", "), "program starts, from the agent"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
	_ = manager.SetReadDeadline(time.Now().Add(time.Minute))
	told := make([]byte, 64)
	if n, err := manager.Read(told); err != nil || !strings.HasPrefix(string(told[:n]), "READY=1\nSTATUS=") {
		t.Errorf("the service manager is told %q (%v), want READY=1 and a status", told[:n], err)
	}
}

// TestAgentFails: the error of the agent is that of the command.
func TestAgentFails(t *testing.T) {
	_, err := runAgent(t.Context(), func(context.Context, agent.ServeConfig) error { return errors.New("another agent runs") }, "--state", t.TempDir())
	if err == nil || err.Error() != "another agent runs" || exitCode(err) != ExitHost {
		t.Errorf("got %v, exit code %d", err, exitCode(err))
	}
}

// TestAgentCheck checks wrong usage, and that --check starts and creates nothing.
func TestAgentCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--state", filepath.Join(dir, "new"), "--check"}, 0, "An agent can use the state folder " + filepath.Join(dir, "new") + ".\n"},
		{[]string{"--state", filepath.Join(file, "state"), "--check"}, ExitHost, "state folder " + filepath.Join(file, "state") + ": "},
		{[]string{"--state", file, "--check"}, ExitHost, file + " is not a folder; choose another with --state"},
		{[]string{"--orphan-after", "9s", "--check"}, ExitUsage, "--orphan-after must be from 10s to 24h0m0s, not 9s; see `spacehost agent --help`"},
		{[]string{"--orphan-after", "25h"}, ExitUsage, "--orphan-after must be from 10s to 24h0m0s, not 25h0m0s"},
		{[]string{"--orphan-after", "soon"}, ExitUsage, `--orphan-after "soon" is not a duration; use a value such as 90s, 5m or 1h`},
		{[]string{"local"}, ExitUsage, "see `spacehost agent --help`"},
	} {
		text, err := runAgent(t.Context(), func(context.Context, agent.ServeConfig) error { t.Error("the agent starts"); return nil }, row.args...)
		if err != nil {
			text += err.Error()
		}
		if exitCode(err) != row.code || !strings.Contains(text, row.want) {
			t.Errorf("%v: got %d, %q, want %d, %q", row.args, exitCode(err), text, row.code, row.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !os.IsNotExist(err) {
		t.Errorf("--check has created the state folder (%v)", err)
	}
}
