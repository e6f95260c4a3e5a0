package machine

import (
	"fmt"
	"slices"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/printable"
)

// Limits of what a node may report about its Devices.
const (
	maxSlots = 1024
	maxText  = 200 // bytes of a name or a UUID
	maxXid   = 999 // of the errors of the driver; those that NVIDIA lists have up to three digits
)

// DevicesError refuses Devices that no machine has.
type DevicesError struct{ Why string }

func (e *DevicesError) Error() string {
	return fmt.Sprintf("the node reports GPUs that cannot exist (%s); install the version of the front on the node", e.Why)
}

// check refuses Slots that would confuse the scheduler: the front trusts a node with its own Devices only.
func (d Devices) check() error {
	if len(d.Slots) > maxSlots {
		return &DevicesError{fmt.Sprintf("%d slots, at most %d are possible", len(d.Slots), maxSlots)}
	}
	indexes, seen := map[int]bool{}, map[gpu.DeviceUUID]bool{}
	var last gpu.Device
	for _, s := range d.Slots {
		uuid := string(s.Device.UUID)
		switch {
		case gpu.CheckSelection(uuid) != nil || !isPlain(uuid) || !isPlain(s.Device.Name):
			return &DevicesError{fmt.Sprintf("%.40q is the UUID of %.40q", uuid, s.Device.Name)}
		case s.Index < 0 || indexes[s.Index]:
			return &DevicesError{fmt.Sprintf("slot %d is listed twice or negative", s.Index)}
		case s.Device != last && seen[s.Device.UUID]:
			return &DevicesError{fmt.Sprintf("%s is listed twice", uuid)}
		}
		indexes[s.Index], seen[s.Device.UUID], last = true, true, s.Device
	}
	return nil
}

// ReportError refuses a report of leases that no machine makes.
type ReportError struct{ Leases int }

func (e *ReportError) Error() string {
	return fmt.Sprintf("the node reports %d leases, at most %d are possible; install the version of the front on the node", e.Leases, maxSlots)
}

// plainReport returns a report with reasons that can be stored and printed. Errors: *ReportError.
func plainReport(r lease.MachineReport) (lease.MachineReport, error) {
	if n := max(len(r.Open), len(r.Ended)); n > maxSlots {
		return r, &ReportError{n}
	}
	r.Ended = slices.Clone(r.Ended)
	for i := range r.Ended {
		r.Ended[i].Reason = printable.Reason(r.Ended[i].Reason)
	}
	return r, nil
}

func isPlain(text string) bool { return len(text) <= maxText && printable.Reason(text) == text }

// has reports whether a Device is one of these.
func (d Devices) has(uuid gpu.DeviceUUID) bool {
	return slices.ContainsFunc(d.Slots, func(s gpu.Slot) bool { return s.Device.UUID == uuid })
}

// ownStatus keeps the readings of these Devices, and of those of the node that it could not list.
func (d Devices) ownStatus(rows []gpu.DeviceStatus) []gpu.DeviceStatus {
	own := []gpu.DeviceStatus{}
	for _, row := range rows {
		row.Error = printable.Line(row.Error)
		if row.Processes == nil {
			row.Processes = []gpu.Process{}
		}
		at := slices.IndexFunc(d.Slots, func(s gpu.Slot) bool { return s.Device.UUID == row.UUID })
		if at >= 0 {
			row.Device = d.Slots[at].Device
		} else if row.UUID != "" {
			continue
		} else {
			row.Name = printable.Reason(row.Name)
		}
		if len(own) < maxSlots {
			own = append(own, row)
		}
	}
	return own
}

// ownOutsiders keeps the uses of these Devices.
func (d Devices) ownOutsiders(all []lease.Outsider) []lease.Outsider {
	return slices.DeleteFunc(all, func(o lease.Outsider) bool { return !d.has(o.Device) })
}
