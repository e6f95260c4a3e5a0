package gpu

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// DeviceStatus is one row of `spacehost gpu`.
type DeviceStatus struct {
	Device
	Node       string    `json:"node,omitempty"` // the machine that has the Device; absent: this one
	MemoryUsed uint64    `json:"memoryUsed"`     // bytes
	MemoryFree uint64    `json:"memoryFree"`     // bytes
	Processes  []Process `json:"processes"`
	Sensors
	Error  string  `json:"error,omitempty"`  // why the Device could not be read; then the figures are 0
	Cause  error   `json:"-"`                // the error behind Error; nil if Error came from another process
	Faults []Fault `json:"faults,omitempty"` // faults injected into a simulated Device
}

// Status reads every Device, and adds a row without UUID for each Device that could not be listed. It may block as
// Inventory does.
func (p *Pool) Status(ctx context.Context) []DeviceStatus {
	rows := make([]DeviceStatus, 0, len(p.devices))
	faulter, simulated := p.inventory.(Faulter)
	for i, u := range p.usageOfAll(ctx, true) {
		row := p.devices[i].status(u)
		if simulated {
			row.Faults = faulter.Faults(row.UUID)
		}
		rows = append(rows, row)
	}
	if p.missing == nil {
		return rows
	}
	for index, err := range p.missing.Reasons {
		rows = append(rows, Device{Index: index}.status(usage{err: err}))
	}
	slices.SortFunc(rows, func(a, b DeviceStatus) int { return cmp.Compare(a.Index, b.Index) })
	return rows
}

func (d Device) status(u usage) DeviceStatus {
	s := DeviceStatus{Device: d, Processes: []Process{}} // [] in JSON, never null
	if u.err != nil {
		s.Error, s.Cause = u.err.Error(), u.err
		return s
	}
	s.MemoryUsed, s.MemoryFree, s.Sensors = u.memory.Used, u.memory.Free, u.sensors
	s.Processes = append(s.Processes, u.processes...)
	return s
}

// usageOfAll reads all Devices concurrently, so that eight hanging Devices take no longer than one.
func (p *Pool) usageOfAll(ctx context.Context, withSensors bool) []usage {
	usages := make([]usage, len(p.devices))
	var all sync.WaitGroup
	for i, d := range p.devices {
		all.Go(func() {
			usages[i] = p.usageOf(ctx, d.UUID)
			if reader, ok := p.inventory.(SensorReader); ok && withSensors && usages[i].err == nil {
				usages[i].sensors, _ = reader.Sensors(ctx, d.UUID) // what cannot be measured is left out
			}
		})
	}
	all.Wait()
	return usages
}
