package host

import (
	"context"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/views"
	"spacehost/quota"
)

// advisor compares declared with used seconds. A configuration without tier free has no day of a free visitor.
func (h *Host) advisor() views.Advisor {
	free, err := h.tiers.Load().Get("free")
	if err != nil {
		free.Unlimited = true
	}
	return views.Advisor{Ledger: h.ledger, Free: free, Simulated: h.simulated(), Factor: h.durationFactor()}
}

// durationFactor returns the number of seconds that `spaces` requests for one that a function declares, on the GPU that Spaces see.
func (h *Host) durationFactor() float64 {
	if h.visibleGPU == nil {
		return 1
	}
	return h.visibleGPU.DurationFactor
}

// showAdvice prints at the end of `run` which functions should declare another duration, from the calls since began. The leases
// have been settled.
func (h *Host) showAdvice(began time.Time) {
	if h.settings().IsServe() {
		return
	}
	all, err := h.advisor().Advices(context.Background(), quota.UsageQuery{From: began})
	if err != nil {
		h.log.Warn("compare declared with used seconds", zap.Error(err))
		return
	}
	for _, advice := range all {
		h.screen.note(advice.Space + ": " + advice.Text + ".")
	}
}
