package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/agent"
	"spacehost/internal/config"
	"spacehost/internal/deviceapi"
	"spacehost/internal/lease"
	"spacehost/internal/sandbox"
	"spacehost/internal/space"
	"spacehost/server"
	"spacehost/worker"
)

// openAgent connects to the agent of the state folder. It precedes listen, because the agent has the listener of the device API.
func (h *Host) openAgent() (err error) {
	if h.settings().Agent == config.NoAgent {
		return nil
	}
	h.agent, err = agent.Connect(context.Background(), agent.ConnectConfig{
		State: h.state.dir, Command: h.agentCommand, Wait: unitWait(), OrphanAfter: h.settings().OrphanAfter, Logger: h.log.Named("agent"),
	})
	if err != nil {
		h.agent = nil
		return err
	}
	h.onClose(h.closeAgent)
	return nil
}

// closeAgent ends the agent, unless it keeps the Spaces: for the next host, or because this one has not begun to run.
func (h *Host) closeAgent() {
	if h.leaving.Load() || !h.ran.Load() && len(h.keptStarts()) > 0 {
		h.agent.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopReserve)
	defer cancel()
	if err := h.agent.Stop(ctx); err != nil {
		h.log.Warn("agent not ended", zap.Error(err))
	}
	h.agent.Close()
}

// CauseOfSignal returns the cause with which to end the context of Run for a signal. SIGTERM ends the host alone if an agent keeps
// the Spaces.
func (h *Host) CauseOfSignal(s os.Signal) error {
	if h.agent == nil && h.cluster == nil || s != syscall.SIGTERM {
		return context.Canceled
	}
	return &worker.StopCause{Reason: "The host restarts.", Ledger: space.EndedByHost, Leave: true, Cause: worker.CauseHost}
}

// leaves reports whether the end of ctx leaves the Spaces with the agent.
func leaves(ctx context.Context) bool {
	cause, is := errors.AsType[*worker.StopCause](context.Cause(ctx))
	return is && cause.Leave
}

// agentCommand returns the command line of an agent.
func (h *Host) agentCommand() *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	cmd := exec.Command(program, "agent", "--state", h.state.dir, "--orphan-after", h.settings().OrphanAfter.String())
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { // the service manager waits for messages of the host
		name, _, _ := strings.Cut(pair, "=")
		return name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "WATCHDOG_")
	})
	return cmd
}

// unitWait is how long the host waits for the agent of its unit, which systemd starts again a second after a crash
// (spacehost-agent.service, RestartSec). An agent that the host started meanwhile would end together with the host's unit.
func unitWait() time.Duration {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return 0
	}
	return 3 * time.Second
}

// keptStarts lists the processes that an earlier host has left with the agent.
func (h *Host) keptStarts() []worker.Kept {
	if h.agent == nil {
		return nil
	}
	return h.agent.All()
}

func (h *Host) keptInstances() (all []string) {
	for _, kept := range h.keptStarts() {
		all = append(all, kept.Facts.Instance)
	}
	return all
}

// registerKept registers the processes that an earlier host has left, and ends those of Spaces that this host does not have.
func (h *Host) registerKept() {
	for _, kept := range h.keptStarts() {
		if h.find(kept.Space) == nil {
			h.log.Info("Space is not configured any more", zap.String("space", kept.Space), zap.String("instance", kept.Facts.Instance))
			h.agent.End(kept)
			continue
		}
		h.processes.Register(kept.Space, kept.Facts.Instance, kept.Tree())
	}
}

// recoverLeases settles the leases of an earlier host, except those of processes that the agent has kept.
func (h *Host) recoverLeases(ctx context.Context) error {
	if h.agent == nil {
		return h.broker.Recover(ctx, lease.Kept{})
	}
	return h.broker.Recover(ctx, lease.Kept{Instances: h.keptInstances(), Report: h.agent.Report()})
}

// startText identifies what a start of the Space depends on beside its worker.Spec (worker.LocalConfig.Settings). The addresses of
// other Spaces are not part of it: a Space that is added or removed ends no other one, as in a reload.
func (s *spaceRun) startText() string {
	data, err := json.Marshal(struct {
		Settings string
		Level    string
		UID      uint32
		Nodes    []sandbox.Mount
	}{s.settings().StartText(), s.level().String(), s.uid(), s.host.nodeMounts()})
	if err != nil {
		panic(err) // plain data
	}
	return string(data)
}

// reopen implements worker.LocalConfig.Reopen.
func (s *spaceRun) reopen(kept worker.Kept, files []*os.File) error {
	at, err := url.Parse(kept.Door)
	if err != nil {
		return fmt.Errorf("door of an earlier host: %w", err)
	}
	instance := kept.Facts.Instance
	s.host.device.OpenAt(at.Path, deviceapi.Door{Space: s, Instance: instance, Inside: s.isSandboxed()})
	if s.isSandboxed() {
		s.socketsOpened(instance, s.keptSockets(kept.Sockets, s.insideSockets(worker.StartInfo{Instance: instance, Device: s.host.devices.Addr.Port})), files)
	}
	return nil
}

// keptSockets returns the sockets of a start of an earlier host. At the address of a Space that is not configured any more, no Space
// is found.
func (s *spaceRun) keptSockets(kept []sandbox.Socket, present []insideSocket) (all []insideSocket) {
	for _, one := range kept {
		at := slices.IndexFunc(present, func(p insideSocket) bool { return p.Socket == one })
		if at >= 0 {
			all = append(all, present[at])
		} else {
			all = append(all, s.attached(newSiteSocket(one.Name, one.Address, s.host.server.NewShared(server.Routes{}))))
		}
	}
	return all
}
