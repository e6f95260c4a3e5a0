package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// clearSlack is how far the memory in use may exceed the idle baseline on a clear Device. Contexts of the display and
// the driver's own tables come and go. (The CUDA context of a worker alone takes more.)
const clearSlack = 256 << 20

// Slot is the share of a Device that a Lease of size large occupies.
type Slot struct {
	Index  int // nvidiaIndex on the wire: the Slot's number on the whole host, not the driver's index
	Device Device
}

// Pool holds the Slots of a machine and reports whether a Device is clear. It does not change after NewPool, so it
// needs no lock.
type Pool struct {
	inventory Inventory
	devices   []Device
	share     Share
	missing   *MissingError         // nil: every Device was listed
	baselines map[DeviceUUID]uint64 // bytes in use on the idle Device
	numbers   map[DeviceUUID]int    // of the first Slot of each Device
	next      int                   // above the numbers of all Slots, also of those of earlier Pools
}

// NewPool lists the Devices and measures the memory that each uses when idle, so it may block. A faulty Device is not
// an error: Clear and Status report it. NewPool fails if no Device can be listed. The caller remains the owner of
// inv. With names in only, the Pool has these Devices alone: indexes of the driver, or beginnings of UUIDs. Errors are
// then also *NotSelectableError and *AmbiguousDeviceError.
func NewPool(ctx context.Context, inv Inventory, share Share, only ...string) (*Pool, error) {
	return (&Pool{}).Renew(ctx, inv, share, only...)
}

// Renew is NewPool for another Inventory of the same machine, whose Devices may have changed. Devices that both have keep their Slots'
// numbers and their idle memory, because workers may use them now. New Devices get numbers that no Slot had before. The old Pool
// does not change.
func (p *Pool) Renew(ctx context.Context, inv Inventory, share Share, only ...string) (*Pool, error) {
	devices, err := inv.Devices(ctx)
	missing, _ := errors.AsType[*MissingError](err)
	if err != nil && (missing == nil || len(devices) == 0) {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	if devices, missing, err = selectDevices(devices, missing, only); err != nil {
		return nil, err
	}
	renewed := &Pool{inventory: inv, devices: devices, share: max(1, share), missing: missing, baselines: make(map[DeviceUUID]uint64), numbers: make(map[DeviceUUID]int), next: p.next}
	for i, u := range renewed.usageOfAll(ctx, false) {
		uuid := devices[i].UUID
		number, known := p.numbers[uuid]
		if !known {
			number, renewed.next = renewed.next, renewed.next+int(renewed.share)
		}
		renewed.numbers[uuid], renewed.baselines[uuid] = number, u.idle()
		if before := p.baselines[uuid]; before > 0 {
			renewed.baselines[uuid] = before
		}
	}
	if err := context.Cause(ctx); err != nil { // the baselines may be wrong
		return nil, fmt.Errorf("read idle devices: %w", err)
	}
	return renewed, nil
}

// Devices lists the Devices of the Pool by index. The slice belongs to the caller.
func (p *Pool) Devices() []Device { return slices.Clone(p.devices) }

// Slots lists the Slots ordered by index. The Slots of one Device are adjacent. The slice belongs to the caller.
func (p *Pool) Slots() []Slot {
	slots := make([]Slot, 0, len(p.devices)*int(p.share))
	for _, d := range p.devices {
		for i := range int(p.share) {
			slots = append(slots, Slot{Index: p.numbers[d.UUID] + i, Device: d})
		}
	}
	slices.SortFunc(slots, func(a, b Slot) int { return a.Index - b.Index })
	return slots
}

// Inventory returns the Inventory that was passed to NewPool.
func (p *Pool) Inventory() Inventory { return p.inventory }

// Neighbours describes the Leases on the other Slots of a Device. The zero value means that there are none.
type Neighbours struct {
	Slots int
	Own   func(pid int) bool // reports whether a process belongs to one of these Leases; may be nil if Slots is 0
}

// Clear reports whether a Lease can start on the Device next to its neighbours. It may block as Inventory does.
// *BusyError means not yet; any other error means that the state is unknown, so the Lease cannot start either. Both
// rules must hold:
//
//  1. Only processes of the neighbours are listed on the Device.
//  2. The memory in use is at most the idle baseline that NewPool measured, plus the memory of the neighbours'
//     processes, plus a slack.
//
// Rule 2 exists because memory is freed later than its process exits, and because in some containers the process list
// is always empty. The baseline is fixed because the difference between before and after the Lease is unreliable (as
// in Ollama). Where the list is empty, neighbours that use memory block the other Slots.
func (p *Pool) Clear(ctx context.Context, uuid DeviceUUID, neighbours Neighbours) error {
	u := p.usageOf(ctx, uuid)
	if u.err != nil {
		return u.err
	}
	neighbourMemory := p.excludeNeighbours(&u, neighbours)
	limit := p.baselines[uuid] + neighbourMemory + clearSlack
	if len(u.processes) == 0 && u.memory.Used <= limit { // 1, 2
		return nil
	}
	return &BusyError{UUID: uuid, PIDs: u.pids(), Used: u.memory.Used, Limit: limit}
}

// excludeNeighbours removes the neighbours' processes from the list and returns their memory: the driver's figure, or
// their whole share where the driver reports none.
func (p *Pool) excludeNeighbours(u *usage, neighbours Neighbours) (memory uint64) {
	if neighbours.Slots == 0 {
		return 0
	}
	known := true
	u.processes = slices.DeleteFunc(slices.Clone(u.processes), func(o Process) bool {
		if !neighbours.Own(o.PID) {
			return false
		}
		memory += o.Memory + clearSlack // each context has its own tables
		known = known && o.Memory > 0
		return true
	})
	if !known {
		return u.memory.Total / uint64(p.share) * uint64(neighbours.Slots)
	}
	return memory
}

// usage is the state of a Device at one moment.
type usage struct {
	processes []Process
	memory    Memory
	sensors   Sensors // only for Status
	err       error
}

func (p *Pool) usageOf(ctx context.Context, uuid DeviceUUID) (u usage) {
	u.processes, u.memory, u.err = p.inventory.Usage(ctx, uuid)
	return u
}

func (u usage) pids() []int {
	pids := make([]int, len(u.processes))
	for i, p := range u.processes {
		pids[i] = p.PID
	}
	return pids
}

// idle returns the memory in use without the listed processes: a worker of a host that crashed may still be running
// when the next host starts. It returns 0 for a Device that could not be read, so that Device stays blocked until it
// is nearly empty.
func (u usage) idle() uint64 {
	left := u.memory.Used
	for _, p := range u.processes {
		left -= min(left, p.Memory)
	}
	return left
}
