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
	MemoryUsed uint64    `json:"memoryUsed"` // bytes
	MemoryFree uint64    `json:"memoryFree"` // bytes
	Processes  []Process `json:"processes"`
	Error      string    `json:"error,omitempty"`  // why it could not be read; then the figures are 0
	Cause      error     `json:"-"`                // of Error: nil where that came from another process
	Faults     []Fault   `json:"faults,omitempty"` // what a simulated Device was given
}

// Status reads every Device, and adds a row without UUID for each that could not be listed. It may block as Inventory does.
func (p *Pool) Status(ctx context.Context) []DeviceStatus {
	rows := make([]DeviceStatus, 0, len(p.devices))
	faulter, simulated := p.inventory.(Faulter)
	for i, u := range p.useOfAll(ctx) {
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
		rows = append(rows, Device{Index: index}.status(use{err: err}))
	}
	slices.SortFunc(rows, func(a, b DeviceStatus) int { return cmp.Compare(a.Index, b.Index) })
	return rows
}

func (d Device) status(u use) DeviceStatus {
	s := DeviceStatus{Device: d, Processes: []Process{}} // [] in JSON, never null
	if u.err != nil {
		s.Error, s.Cause = u.err.Error(), u.err
		return s
	}
	s.MemoryUsed, s.MemoryFree = u.memory.Used, u.memory.Free
	s.Processes = append(s.Processes, u.processes...)
	return s
}

// useOfAll asks all Devices at the same time, so that eight that hang take no longer than one.
func (p *Pool) useOfAll(ctx context.Context) []use {
	uses := make([]use, len(p.devices))
	var all sync.WaitGroup
	for i, d := range p.devices {
		all.Go(func() { uses[i] = p.use(ctx, d.UUID) })
	}
	all.Wait()
	return uses
}
