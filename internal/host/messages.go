package host

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/clock"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/views"
	"spacehost/queue"
	"spacehost/quota"
)

// This file holds the messages to visitors (toasts in Gradio) and to the operator (screen) about events of the broker and
// of the clock.

// WarnVisitor implements deviceapi.Notifier: it shows a warning to the visitor of an Event.
func (h *Host) WarnVisitor(space, event, text string) {
	h.find(space).queue.Warn(queue.EventID(event), "ZeroGPU", text)
}

// reportExpired reports to visitor and operator which limit ended a lease, and what to change.
func (h *Host) reportExpired(end lease.End) {
	h.observe.expired(end)
	text := fmt.Sprintf("GPU time is over: %g s declared, ended after %.1f s. ", end.Declared.Seconds(), end.Used.Seconds())
	if end.Event == "" || h.Alive(end.Space, end.Event) { // a call that the Space makes by itself has no Event
		text += "Raise @spaces.GPU(duration=...) if the function needs longer."
	} else {
		text += "The call had already ended, but the Space did not release the GPU. Either a thread of the function still ran, or its result or exception could not be unpickled."
	}
	h.screen.note(end.Space + ": " + text)
	h.WarnVisitor(end.Space, end.Event, text)
}

// LeaseEnding implements control.Host. The call may still end by itself, and be charged: so the text says what holds for ends by an
// operator.
func (h *Host) LeaseEnding(ending lease.Ended, reason string) {
	text := "The operator of this host ends this call"
	if reason != "" {
		text += ": " + strings.TrimSuffix(reason, ".")
	}
	if s := h.find(ending.Space); s != nil && ending.Event != "" {
		s.queue.Warn(queue.EventID(ending.Event), "ZeroGPU", text+". A call that an operator ends is not charged.")
	}
}

// xidReporter returns the function that reports driver errors to the operator: each hardware error, and each kind of
// application error once per Device. The broker calls it from one goroutine.
func (h *Host) xidReporter() func(gpu.DeviceUUID, gpu.Xid) {
	reported := map[string]bool{}
	return func(uuid gpu.DeviceUUID, xid gpu.Xid) {
		h.metrics.Reported(uuid, xid)
		text := fmt.Sprintf("The driver reports %s on %s. Applications cause this error; the GPU stays in service.", xid, uuid)
		if xid.Condemns() {
			text = fmt.Sprintf("WARNING: the driver reports %s on %s. The GPU is drained; to put it back into service, run `spacehost gpu return %s`.", xid, uuid, uuid)
		}
		if !reported[text] || xid.Condemns() {
			reported[text] = true
			h.screen.note(text)
		}
	}
}

// reportUnleased reports to the operator a process that uses a GPU without a lease, and so keeps the GPU out of service.
func (h *Host) reportUnleased(u lease.Unleased) {
	h.metrics.Uninvited(u)
	h.noticeUnleased(u)
	switch {
	case u.Space == "":
		h.screen.note(fmt.Sprintf("WARNING: pid %d, which belongs to no Space, uses %s. The GPU is not lent until the process frees it; spacehost does not end the process.", u.PID, u.Device))
	case u.Ended:
		h.screen.note(fmt.Sprintf("%s: WARNING: pid %d used %s outside @spaces.GPU; the host ends it.", u.Space, u.PID, u.Device))
	default:
		h.screen.note(fmt.Sprintf("%s: WARNING: pid %d uses %s outside @spaces.GPU. The GPU is not lent until the process frees it. "+
			"Move this work into a GPU function: on ZeroGPU no GPU is available elsewhere.", u.Space, u.PID, u.Device))
	}
}

// LeaseWaits implements deviceapi.Notifier: it shows the forecast to the visitor. The `spaces` package itself reports that
// the call waits.
func (h *Host) LeaseWaits(r lease.Request, f lease.Forecast) {
	if r.Event == "" { // no visitor waits
		return
	}
	h.find(r.Space).queue.Inform(queue.EventID(r.Event), "ZeroGPU queue", h.forecastText(r, f))
}

func (h *Host) forecastText(r lease.Request, f lease.Forecast) string {
	text := fmt.Sprintf("Your call is number %d in line for a GPU. ", f.Rank+1)
	switch f.Limit {
	case lease.OfSpace:
		text = fmt.Sprintf("At most %d of this Space's calls may hold a GPU at a time; yours is number %d in line. ", h.perSpace(r.Space), f.Rank+1)
	case lease.OfIdentity:
		text = fmt.Sprintf("At most %d of your calls may hold a GPU at a time; this one is number %d in line. ", r.Tier.Concurrency, f.Rank+1)
	}
	now := h.clock.Now()
	maintenance := views.Maintenance(h.broker.Maintenance(r.Declared), now)
	switch {
	case maintenance != "" && (f.Start == nil || f.Start.After(f.GivesUp)):
		return maintenance + ". Your call waits, and nothing is charged."
	case f.Start == nil:
		return text + "Its start cannot be predicted: every GPU is out of service or used from outside this host."
	case f.Start.After(f.GivesUp):
		return text + fmt.Sprintf("If the calls before it use all their declared time, it would start in %s; but it waits at most %s.",
			clock.InSeconds(f.Start.Sub(now)), clock.InSeconds(f.GivesUp.Sub(now)))
	}
	return text + fmt.Sprintf("If the calls before it use all their declared time, it starts in %s.", clock.InSeconds(f.Start.Sub(now)))
}

// GPUHealth implements console.Host. The reasons name processes of the machine, so they are for operators only.
func (h *Host) GPUHealth() views.GPUs {
	found := views.GPUHealth(h.broker, h.clock.Now())
	found.Detail = ""
	return found
}

// LeaseTimedOut implements deviceapi.Notifier: it names the reason of the operators, if they have drained every GPU.
func (h *Host) LeaseTimedOut(r lease.Request) {
	text := views.Maintenance(h.broker.Maintenance(r.Declared), h.clock.Now())
	if text != "" && r.Event != "" {
		h.WarnVisitor(r.Space, r.Event, text+". Nothing was charged; try again afterwards.")
	}
}

// LeaseRefused implements deviceapi.Notifier: it records the refusal. It also names the account to a visitor who is not that
// account: the `spaces` package shows every visitor a message about "your quota".
func (h *Host) LeaseRefused(r lease.Request, err quota.Refused) {
	h.refusals.Add(quota.Refusal{At: h.clock.Now(), Identity: r.Payer.Key(), Tier: r.Tier.Name, Space: r.Space, Task: r.Function, Err: err})
	if r.Event == "" || r.Payer.Via == "" && r.Payer.Kind != identity.Space {
		return
	}
	text := fmt.Sprintf("the Space %s refused this call because of the ZeroGPU quota of %s", r.Space, r.Payer.Key())
	if r.Payer.Via != "" {
		text += ", which the Space " + r.Payer.Via + " spends by delegation"
	}
	h.find(r.Space).queue.Warn(queue.EventID(r.Event), "ZeroGPU", text+": "+refusalReason(err))
}

// refusalReason returns the quota's reason for a refusal, and the time until it ends.
func refusalReason(err quota.Refused) string {
	if temporary, ok := err.(interface{ Again() time.Duration }); ok {
		return fmt.Sprintf("%s; try again in %s", err.Reason(), views.Countdown(temporary.Again()))
	}
	return err.Reason()
}

// RunsOver implements deviceapi.Notifier: it prints once that an enforced limit of runs would refuse this call.
func (h *Host) RunsOver(r lease.Request) {
	h.runsNote.Do(func() {
		h.screen.note(fmt.Sprintf("note: %d runs in 24 hours are used: a visitor with tier %q would be refused now (quota preset %s). Calls go on; --tier %s refuses them.",
			r.Tier.Runs, r.Tier.Name, h.tiers.Load().Preset, r.Tier.Name))
	})
}

// ClockMoved implements control.Host: it handles everything that became due by an advance of the host's clock.
func (h *Host) ClockMoved() {
	ahead := h.clock.Advanced()
	h.log.Warn("clock advanced", zap.Duration("ahead", ahead))
	h.screen.note(fmt.Sprintf("The host's clock is %s ahead of the true time.", ahead))
	h.broker.LookAgain()
	for _, s := range h.all() {
		s.queue.LookAgain()
	}
}

// systemTime returns the wall clock of this machine, without the operator's advance.
func systemTime() time.Time { return time.Now().Round(0) }

// systemClockChanged repairs quota windows after a system clock change.
func (h *Host) systemClockChanged(by time.Duration) {
	h.log.Warn("clock was set", zap.Duration("by", by))
	if by > time.Hour {
		h.screen.note(fmt.Sprintf("warning: this machine's clock jumped ahead by %s: quota windows that end before %s are over",
			by.Round(time.Second), h.clock.Now().Local().Format("Jan 2 15:04:05")))
	}
	if by < 0 {
		moved, err := h.ledger.Reanchor(context.Background(), h.clock.Now())
		if err != nil {
			h.log.Error("reanchor windows", zap.Error(err))
		}
		h.screen.note(fmt.Sprintf("warning: this machine's clock was set back by %s: %d quota windows start now", (-by).Round(time.Second), moved))
	}
	h.broker.LookAgain()
}
