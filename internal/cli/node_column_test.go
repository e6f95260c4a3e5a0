package cli

import (
	"strings"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// TestNodeColumn shows lists with and without what is on nodes.
func TestNodeColumn(t *testing.T) {
	own := control.GPU{DeviceStatus: gpu.DeviceStatus{Device: gpu.Device{UUID: "GPU-1", Name: "L4"}}, Slots: []lease.SlotView{{Phase: "free"}}}
	far := control.GPU{DeviceStatus: gpu.DeviceStatus{Device: gpu.Device{UUID: "GPU-2", Name: "L4"}, Node: "gpu2"}, Slots: []lease.SlotView{{Machine: "gpu2", Phase: "busy", Reason: "lost"}}}
	unlisted := control.GPU{DeviceStatus: gpu.DeviceStatus{Node: "gpu2", Error: "no UUID"}}
	gpus := func(all ...control.GPU) string {
		var out strings.Builder
		showGPUs(&out, all)
		return out.String()
	}
	now := time.Now()
	leases := func(open []lease.Snapshot, ended ...lease.Past) string {
		var out strings.Builder
		showLeases(&out, control.Leases{Now: now, Open: open, Ended: ended})
		return out.String()
	}
	here, there := lease.Snapshot{Lease: "a", Admitted: now}, lease.Snapshot{Lease: "b", Admitted: now, Machine: "gpu2"}
	slot := 1
	for _, row := range []struct{ got, want string }{
		{gpus(own), "SLOT\tNAME\tUUID\tMEMORY\tPROCESSES\tSTATE\n0\tL4\tGPU-1\t0/0 MiB\t0\tfree\n"},
		{gpus(own, far, unlisted), "NODE\tSLOT\tNAME\tUUID\tMEMORY\tPROCESSES\tSTATE\n-\t0\tL4\tGPU-1\t0/0 MiB\t0\tfree\ngpu2\t0\tL4\tGPU-2\t0/0 MiB\t0\tbusy: lost\ngpu2\t-\t\t\t0/0 MiB\t0\tno UUID\n"},
		{leases([]lease.Snapshot{here}), "LEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY\na\t"},
		{leases([]lease.Snapshot{here, there}), "NODE\tLEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY\n-\ta\t"},
		{leases(nil, lease.Past{Lease: "c", Machine: "gpu2", Ended: now}), "NODE\tLEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY\ngpu2\tc\t"},
		{deviceName(control.DrainAnswer{UUID: "GPU-1", Slots: []int{0}}), "GPU-1 (slot 0)"},
		{deviceName(control.DrainAnswer{UUID: "GPU-2", Node: "gpu2", Slots: []int{0, 1}}), "GPU-2 (slots 0, 1 of node gpu2)"},
	} {
		if !strings.HasPrefix(row.got, row.want) {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
	if got := formatChange(lease.Change{Slot: &slot, Machine: "gpu2", State: lease.Unreachable}); !strings.HasSuffix(got, ", slot 1, node gpu2") {
		t.Errorf("change %q", got)
	}
}
