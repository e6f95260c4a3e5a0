package views

import (
	"slices"
	"strings"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/lease"
)

// TestGPUHealth judges Slots of one or two Devices.
func TestGPUHealth(t *testing.T) {
	slot := func(device gpu.DeviceUUID, phase, reason string) lease.SlotView {
		return lease.SlotView{Device: device, Phase: phase, Reason: reason}
	}
	operator, fault := lease.Drain{Reason: "new fan", Operator: true}, lease.Drain{Reason: "Xid 79"}
	for _, row := range []struct {
		name    string
		slots   []lease.SlotView
		drains  map[gpu.DeviceUUID]lease.Drain
		want    string // of the trouble; "": none
		isOwned bool   // by operators: maintenance
	}{
		{"no GPU at all", nil, nil, "", false},
		{"a free one", []lease.SlotView{slot("A", "free", "")}, nil, "", false},
		{"all held", []lease.SlotView{slot("A", "held", ""), slot("A", "reclaiming", "")}, nil, "", false},
		{"one is busy", []lease.SlotView{slot("A", "busy", "pid 7 uses it"), slot("B", "warm", "")}, nil, "", false},
		{"all are busy", []lease.SlotView{slot("A", "busy", "pid 7 uses it"), slot("A", "busy", "pid 7 uses it"), slot("B", "busy", "not readable")}, nil,
			"No GPU can be lent. A: pid 7 uses it; B: not readable.", false},
		{"drained by command", []lease.SlotView{slot("A", "drained", ""), slot("A", "held", "")}, map[gpu.DeviceUUID]lease.Drain{"A": operator}, "", true},
		{"drained by a fault", []lease.SlotView{slot("A", "drained", "")}, map[gpu.DeviceUUID]lease.Drain{"A": fault}, "No GPU can be lent. A: Xid 79.", false},
		{"one by a fault, one by command", []lease.SlotView{slot("A", "drained", ""), slot("B", "held", "")}, map[gpu.DeviceUUID]lease.Drain{"A": fault, "B": operator},
			"No GPU can be lent. A: Xid 79.", false},
		{"one by command, one free", []lease.SlotView{slot("A", "drained", ""), slot("B", "free", "")}, map[gpu.DeviceUUID]lease.Drain{"A": operator}, "", false},
		{"a node is lost", []lease.SlotView{slot("A", "free", ""), {Machine: "gpu2", Device: "B", Phase: "busy", Reason: "lost"}}, nil, "", false},
		{"only a node could lend", []lease.SlotView{slot("A", "busy", "not readable"), {Machine: "gpu2", Device: "B", Phase: "free"}}, nil, "No GPU can be lent. A: not readable.", false},
	} {
		got := gpuHealth(row.slots, row.drains)
		if strings.TrimSpace(got.Trouble+" "+got.Detail) != row.want || (got.Maintenance != "") != row.isOwned {
			t.Errorf("%s: got %+v, want %q", row.name, got, row.want)
		}
	}
}

// TestHealth names what is wrong with a host.
func TestHealth(t *testing.T) {
	for _, row := range []struct {
		name    string
		spaces  []Space
		gpus    GPUs
		status  string
		reasons []string // their beginnings
	}{
		{"nothing", nil, GPUs{}, "ok", nil},
		{"stages without a fault", []Space{{Stage: "RUNNING"}, {Stage: "BUILDING"}, {Stage: "APP_STARTING"}, {Stage: "PAUSED"}, {Stage: "STOPPED"}}, GPUs{}, "ok", nil},
		{"maintenance", []Space{{Stage: "RUNNING"}}, GPUs{Maintenance: "new fan"}, "maintenance", nil},
		{"no GPU", nil, GPUs{Trouble: "No GPU can be lent.", Detail: "A: Xid 79."}, "degraded", []string{"No GPU can be lent. A: Xid 79."}},
		{"maintenance and a Space that fails", []Space{{Name: "a", Stage: "BUILD_ERROR", Reason: "no such package"}}, GPUs{Maintenance: "new fan"}, "degraded",
			[]string{"The Space a does not run (BUILD_ERROR). no such package"}},
		{"two Spaces", []Space{{Name: "a", Stage: "RUNTIME_ERROR"}, {Name: "b", Stage: "UNRESPONSIVE", Reason: "It hangs."}}, GPUs{}, "degraded",
			[]string{"The Space a does not run (RUNTIME_ERROR).", "The Space b does not answer. It hangs."}},
		{"a Space without a machine", []Space{{Name: "a", Stage: "BUILDING", WaitsForNode: true, Reason: "It waits for a machine: gpu2 is lost."}}, GPUs{}, "degraded",
			[]string{"The Space a does not run. It waits for a machine: gpu2 is lost."}},
		{"wrong files", []Space{{Name: "a", Stage: "CONFIG_ERROR"}, {Name: "b", Stage: "NO_APP_FILE"}}, GPUs{}, "degraded",
			[]string{"The Space a does not run (CONFIG_ERROR).", "The Space b does not run (NO_APP_FILE)."}},
	} {
		h := NewHealth(row.spaces, row.gpus)
		if h.Status != row.status || !slices.Equal(h.Reasons, row.reasons) || h.Maintenance != row.gpus.Maintenance || h.Spaces == nil {
			t.Errorf("%s: got %s %q, want %s %q", row.name, h.Status, strings.Join(h.Reasons, "|"), row.status, strings.Join(row.reasons, "|"))
		}
	}
}
