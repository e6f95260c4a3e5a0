package host

import (
	"context"
	"os/user"
	"strconv"
	"time"

	"spacehost/internal/space"
	"spacehost/server"
	"spacehost/worker"
)

// RestartSpace implements control.Host. It returns at once, before the restart.
func (h *Host) RestartSpace(name, by string, now bool) time.Duration {
	s := h.find(name)
	if s == nil { // removed by a reload since the request was checked
		return 0
	}
	if h.settings().WatchSource {
		s.note("Restarting it at the operator's request.") // otherwise the Supervisor reports it
	}
	stage := s.supervisor.Status().Stage
	request := worker.Restart{By: by, Now: now}
	if stage != space.Running || !h.settings().IsServe() || !h.goSpace(func(ctx context.Context) { s.restartAnew(ctx, request) }) {
		s.supervisor.Restart(request) // a Space that does not run reads its files at each try
	}
	if now || stage != space.Running {
		return 0
	}
	return h.settings().Drain
}

// goSpace runs do beside the Spaces, which end after it. It returns false if they already end.
func (h *Host) goSpace(do func(ctx context.Context)) bool {
	select {
	case <-h.started:
	default:
		return false
	}
	h.reloading.Lock()
	defer h.reloading.Unlock()
	if h.running.over {
		return false
	}
	h.running.group.Go(func() error { do(h.running.spaces); return nil })
	return true
}

// Hurry ends all drains, of restarts and of the host's end. It may be called twice.
func (h *Host) Hurry() { h.hurryOnce.Do(func() { close(h.hurry) }) }

// CheckTier implements control.Host.
func (h *Host) CheckTier(name string) error { return h.payer.CheckTier(name) }

// Operator implements control.Host: it returns the login name at the other end of the control socket, for the ledger.
func (h *Host) Operator(ctx context.Context) string {
	uid, ok := server.PeerOf(ctx)
	if !ok {
		return "operator"
	}
	return UserName(uid)
}

// UserName returns the login name of a user, else "uid N".
func UserName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "uid " + id
}

// isSpace reports whether the connection of a request belongs to a Space, or to a process that has left one.
func (h *Host) isSpace(ctx context.Context) bool {
	conn := server.ConnOf(ctx)
	return conn != nil && conn.Owner(h.processes.SpaceAt) != ""
}
