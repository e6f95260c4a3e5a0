package host

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/printable"
	"spacehost/internal/space"
	"spacehost/quota"
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
	if s.isOnNode() && stage.IsUp() { // its files are copied to the node before each try
		s.endAttempt(&worker.StopCause{
			Reason: "The operator restarted the Space.", Ledger: space.EndedByRestart + cmp.Or(by, "the operator"), Again: true, Now: now, Cause: worker.CauseOperator, By: by,
		})
		if now || stage != space.Running {
			return 0
		}
		return h.settings().Drain
	}
	if !stage.IsUp() || !h.settings().IsServe() || !h.goSpace(func(ctx context.Context) { s.restartAnew(ctx, request) }) {
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

// Tiers implements control.Host.
func (h *Host) Tiers() []quota.Tier { return h.tiers.Load().All }

// Standing implements control.Host.
func (h *Host) Standing(person string) control.Standing {
	who := identity.Identity{Kind: identity.User, Name: person}
	var spaces []string
	for _, s := range h.all() {
		if s.settings().Visibility == config.Private && s.isMember(who) {
			spaces = append(spaces, s.space().Name)
		}
	}
	return control.Standing{Admin: h.AccessOf(who) == dashboard.Admin, Group: h.settings().GroupOf(person), Spaces: spaces}
}

// Operator implements control.Host: it returns the admin of a request at the console, else the login name at the other end of the
// control socket, for the ledger.
func (h *Host) Operator(ctx context.Context) string {
	if actor := control.Actor(ctx); actor != "" {
		return actor
	}
	uid, ok := server.PeerOf(ctx)
	if !ok {
		return "operator"
	}
	return UserName(uid)
}

// recordAction logs and stores a change by an operator or a person, also one that was refused. Requests that a member was refused
// are only logged: they would let a member fill the database.
func (h *Host) recordAction(a control.Action) {
	defer h.storeAction(a)
	fields := []zap.Field{zap.String("actor", a.Actor), zap.String("action", a.Route), zap.Int("status", a.Status)}
	if len(a.Params) > 0 {
		fields = append(fields, zap.Any("params", a.Params))
	}
	if len(a.Fields) > 0 {
		fields = append(fields, zap.Any("request", a.Fields))
	}
	if a.Token != "" {
		fields = append(fields, zap.String("token", a.Token))
	}
	h.log.Named("operator").Info("operator action", fields...)
}

func (h *Host) storeAction(a control.Action) {
	if a.Unchanged || a.Status >= http.StatusBadRequest && !a.IsOperator() {
		return
	}
	h.audit.Queue(a.Record(h.clock.Now()), func(err error) {
		h.log.Named("operator").Warn("audit entry not stored; the line of the operator action has its content", zap.Error(err))
	})
}

// UserName returns the login name of a user, else "uid N".
func UserName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "uid " + id
}

// DescribeProcess returns the user and the shortened command line of a process of this machine; empty fields if it has exited.
func DescribeProcess(pid int) (info lease.ProcessInfo) {
	folder := fmt.Sprintf("/proc/%d", pid)
	if stat, err := os.Stat(folder); err == nil {
		info.User = UserName(stat.Sys().(*syscall.Stat_t).Uid)
	}
	text, _ := os.ReadFile(folder + "/cmdline") // an exited process has none
	info.Command = printable.Reason(strings.ReplaceAll(string(text), "\x00", " "))
	return info
}

// isSpace reports whether the connection of a request belongs to a Space, or to a process that has left one.
func (h *Host) isSpace(ctx context.Context) bool {
	conn := server.ConnOf(ctx)
	return conn != nil && conn.Owner(h.processes.SpaceAt) != ""
}
