package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/notify"
	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/internal/stages"
	"spacehost/internal/views"
	"spacehost/quota"
	"spacehost/worker"
)

// This file decides which events of the host become notices to webhooks (docs/design/0032-notices.md).

// openNotices creates the sender. It follows the metrics, which count notices.
func (h *Host) openNotices() {
	name, err := os.Hostname()
	if err != nil {
		name = "spacehost"
	}
	h.notices = notify.New(notify.Config{Host: name, Sent: h.metrics.NoticeSent, Ended: h.metrics.NoticeEnded, Logger: h.log.Named("notify")})
	h.notices.Configure(h.settings().Webhooks)
	h.onClose(h.notices.Close)
}

// spaceNotices remembers what the notices about a Space have reported. Its methods are called concurrently.
type spaceNotices struct {
	mu      sync.Mutex
	ran     bool // it was RUNNING before
	isDown  bool // reported as down
	isStuck bool // reported as unresponsive
}

// staged implements worker.SupervisorConfig.Staged: it records the change, counts the end of a start, and sends notices. A failure that
// repeats, or whose stage changes, is one notice.
func (s *spaceRun) staged(to worker.StageChange) {
	s.host.stages.Record(s.space().Name, stages.Change{Stage: string(to.Stage), Reason: to.Reason, Cause: string(to.Cause), By: to.By})
	if to.Cause.Restarts() {
		s.host.metrics.SpaceRestarts(s.space().Name, string(to.Cause))
	}
	stage, reason := to.Stage, to.Reason
	s.reported.mu.Lock()
	defer s.reported.mu.Unlock()
	name, was := s.space().Name, s.reported.isDown
	switch {
	case stage.IsFailed() && !was:
		s.reported.isDown = true
		s.host.notices.Send(notify.Notice{Kind: notify.SpaceDown, Space: name, Text: fmt.Sprintf("The Space %s does not run (%s). %s", name, stage, reason)})
	case stage == space.Running:
		if (s.reported.ran || was) && !s.reported.isStuck { // else the same process answers again
			s.host.notices.Send(notify.Notice{Kind: notify.SpaceRestarted, Space: name, Text: fmt.Sprintf("The Space %s has restarted and runs.", name)})
		}
		s.reported.ran, s.reported.isDown = true, false
	}
	s.reported.isStuck = false
}

// reportUnresponsive sends the notice that the process of a Space runs and does not answer, once until the stage changes:
// to RUNNING if the process answers again, else at its end. detail is a sentence, such as the line at which the process hangs.
func (s *spaceRun) reportUnresponsive(detail string) {
	s.reported.mu.Lock()
	defer s.reported.mu.Unlock()
	if s.reported.isStuck {
		return
	}
	s.reported.isStuck = true
	name := s.space().Name
	s.host.notices.Send(notify.Notice{Kind: notify.SpaceUnresponsive, Space: name, Text: strings.TrimSpace(fmt.Sprintf("The Space %s does not answer. %s", name, detail))})
}

// reportDrained implements lease.Config.Drained.
func (h *Host) reportDrained(uuid gpu.DeviceUUID, d lease.Drain) {
	if !d.Operator {
		h.notices.Send(notify.Notice{Kind: notify.GPULost, GPU: string(uuid), Text: fmt.Sprintf("The GPU %s is no longer lent: %s.", uuid, d.Reason)})
		return
	}
	window := views.Window(d, h.clock.Now())
	if window == "" {
		window = fmt.Sprintf("until `spacehost gpu return %s`", uuid)
	}
	h.notices.Send(notify.Notice{Kind: notify.GPUDrained, GPU: string(uuid), Text: fmt.Sprintf("The GPU %s is drained %s: %s.", uuid, window, d.Reason)})
}

// reportUnreadable implements lease.Config.Unreadable.
func (h *Host) reportUnreadable(uuid gpu.DeviceUUID, err error) {
	h.notices.Send(notify.Notice{Kind: notify.GPULost, GPU: string(uuid), Text: fmt.Sprintf("The GPU %s cannot be read and is not lent: %v.", uuid, err)})
}

// noticeUnleased is the part of reportUnleased for webhooks.
func (h *Host) noticeUnleased(u lease.Unleased) {
	owner := "which belongs to no Space"
	if u.Space != "" {
		owner = "of the Space " + u.Space
	}
	text := fmt.Sprintf("The process %d, %s, uses the GPU %s without a lease. ", u.PID, owner, u.Device)
	if u.Ended {
		text += "The host ends it."
	} else {
		text += "The GPU is not lent until the process frees it."
	}
	h.notices.Send(notify.Notice{Kind: notify.GPUUnleased, Space: u.Space, GPU: string(u.Device), Text: text})
}

// noticeDiskLow implements diskWatch.nearlyFull.
func (h *Host) noticeDiskLow(free int64) {
	h.notices.Send(notify.Notice{Kind: notify.DiskLow, Text: fmt.Sprintf("The disk of the state folder has %s free. Make room on it: below %s the Space that has written most is ended, below 64 MB no GPU call is admitted.",
		proctree.FormatBytes(free), proctree.FormatBytes(minDisk))})
}

// runningMarker is the file that exists while a host runs on a state folder. A host that finds it follows a crash.
const runningMarker = "running"

// markRunning reports a crash of the host before this one, and creates the marker. The returned function removes it.
func (h *Host) markRunning() (unmark func()) {
	path := h.state.path(runningMarker)
	before, err := os.ReadFile(path)
	if err == nil {
		since := strings.TrimSpace(string(before))
		h.log.Warn("the host before this one did not end by itself", zap.String("started", since))
		h.notices.Send(notify.Notice{Kind: notify.HostCrashed, Text: fmt.Sprintf("spacehost has started after a crash: the host that started at %s did not end by itself. Its open GPU leases are settled.", since)})
	}
	if err := os.WriteFile(path, []byte(time.Now().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		h.log.Warn("marker of the running host not written", zap.Error(err))
	}
	return func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			h.log.Warn("marker of the running host not removed", zap.Error(err))
		}
	}
}

const (
	// quotaLowShare is the part of the quota after which a person receives a notice.
	quotaLowShare = 0.9
	// quotaLookInterval lets the settlement of an ended lease be committed before the account is read.
	quotaLookInterval = 5 * time.Second
)

// quotaWatch finds the people who have used nearly all of their quota, once for each window.
type quotaWatch struct {
	balance func(context.Context, identity.Identity) (quota.Balance, error)
	send    func(notify.Notice)
	log     *zap.Logger

	mu      sync.Mutex
	changed map[string]bool // accounts with a charge since the last look

	told map[string]time.Time // the window of the last notice, by account; used by run alone
}

// onChange implements lease.Config.Changed.
func (w *quotaWatch) onChange(c lease.Change) {
	if !c.IsFinal() || c.ChargedSeconds == 0 || !strings.HasPrefix(c.Identity, string(identity.User)+":") {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = map[string]bool{}
	}
	w.changed[c.Identity] = true
}

// run looks until ctx ends.
func (w *quotaWatch) run(ctx context.Context) {
	again := time.NewTicker(quotaLookInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		w.mu.Lock()
		changed := w.changed
		w.changed = nil
		w.mu.Unlock()
		for account := range changed {
			if err := w.look(ctx, account); err != nil && ctx.Err() == nil {
				w.log.Warn("quota not read for a notice", zap.String("identity", account), zap.Error(err))
			}
		}
	}
}

func (w *quotaWatch) look(ctx context.Context, account string) error {
	id, err := identity.ParseKey(account)
	if err != nil {
		return err
	}
	b, err := w.balance(ctx, id)
	if err != nil || b.Unlimited || b.ResetsAt == nil || b.Charged < time.Duration(quotaLowShare*float64(b.Base)) || w.told[account].Equal(*b.ResetsAt) {
		return err
	}
	if w.told == nil {
		w.told = map[string]time.Time{}
	}
	w.told[account] = *b.ResetsAt
	w.send(notify.Notice{Kind: notify.QuotaLow, Person: id.Name, Text: fmt.Sprintf("%s has used %.0f of %.0f seconds of GPU time. The quota is full again at %s.",
		id.Name, b.Charged.Seconds(), b.Base.Seconds(), b.ResetsAt.Local().Format("Jan 2 15:04 MST"))})
	return nil
}

func (h *Host) newQuotaWatch() *quotaWatch {
	return &quotaWatch{
		balance: func(ctx context.Context, id identity.Identity) (quota.Balance, error) {
			tier, err := h.payer.CurrentAllowance(ctx, id)
			if err != nil {
				return quota.Balance{}, err
			}
			return h.broker.Account(ctx, id, tier)
		},
		send: h.notices.Send, log: h.log.Named("notify"),
	}
}
