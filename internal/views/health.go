package views

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/space"
)

// GPUs is why a host lends no GPU. All texts are empty if it lends one, or has none.
type GPUs struct {
	Maintenance string // operators have drained every one: the reasons and the times
	Trouble     string // a sentence for everyone: no GPU can be lent, and not only because of operators
	Detail      string // the reasons, for operators
}

// GPUHealth finds out whether a host can lend a GPU of its own machine. It does not block.
func GPUHealth(broker *lease.Broker, now time.Time) GPUs {
	drains, _ := broker.Drains()
	found := gpuHealth(broker.Slots(), drains)
	if found.Maintenance != "" {
		found.Maintenance = Maintenance(broker.Maintenance(0), now)
	}
	if trouble := broker.Trouble(); trouble != nil {
		found.Trouble, found.Detail = "No GPU is lent, because the ledger cannot be written.", fmt.Sprintf("%v.", trouble)
	}
	return found
}

// gpuHealth is GPUHealth by the Slots and by the drains in force. Maintenance is then any text.
func gpuHealth(slots []lease.SlotView, drains map[gpu.DeviceUUID]lease.Drain) (found GPUs) {
	var reasons []string
	for _, s := range slots {
		if s.Machine != "" { // the state of a node is not that of this host
			continue
		}
		d, isDrained := drains[s.Device]
		reason := s.Reason
		switch {
		case isDrained && d.Operator:
			found.Maintenance = d.Reason
			continue
		case isDrained:
			reason = d.Reason
		case s.Phase != lease.PhaseBusy:
			return GPUs{} // it is lent, or will be when its call has ended
		}
		if text := fmt.Sprintf("%s: %s", s.Device, reason); !slices.Contains(reasons, text) {
			reasons = append(reasons, text)
		}
	}
	if len(reasons) > 0 {
		return GPUs{Trouble: "No GPU can be lent.", Detail: strings.TrimRight(strings.Join(reasons, "; "), ".") + "."}
	}
	return found
}

// NewHealth returns the Health of a host with these Spaces.
func NewHealth(spaces []Space, gpus GPUs) Health {
	h := Health{Status: "ok", Maintenance: gpus.Maintenance, Spaces: append([]Space{}, spaces...)} // [] in JSON, never null
	if gpus.Maintenance != "" {
		h.Status = "maintenance"
	}
	if gpus.Trouble != "" {
		h.Reasons = append(h.Reasons, strings.TrimSpace(gpus.Trouble+" "+gpus.Detail))
	}
	for _, s := range spaces {
		switch stage := space.Stage(s.Stage); {
		case stage == space.Unresponsive:
			h.Unresponsive = append(h.Unresponsive, s.Name)
			h.Reasons = append(h.Reasons, strings.TrimSpace(fmt.Sprintf("The Space %s does not answer. %s", s.Name, s.Reason)))
		case s.WaitsForNode:
			h.Reasons = append(h.Reasons, strings.TrimSpace(fmt.Sprintf("The Space %s does not run. %s", s.Name, s.Reason)))
		case stage.IsFailed():
			h.Reasons = append(h.Reasons, strings.TrimSpace(fmt.Sprintf("The Space %s does not run (%s). %s", s.Name, stage, s.Reason)))
		}
	}
	if len(h.Reasons) > 0 {
		h.Status = degraded
	}
	return h
}

const degraded = "degraded"

// Add adds a sentence about something that is wrong; "" adds nothing.
func (h *Health) Add(reason string) {
	if reason != "" {
		h.Status, h.Reasons = degraded, append(h.Reasons, reason)
	}
}
