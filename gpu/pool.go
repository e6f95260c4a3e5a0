package gpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// clearSlack is how much more than when idle a Device may use and still be clear: contexts of the display and the driver's own tables
// come and go. (A worker's CUDA context alone takes more.)
const clearSlack = 256 << 20

// Slot is the share of a Device that a Lease of size large occupies.
type Slot struct {
	Index  int // nvidiaIndex on the wire: the number of the Slot on the whole host, never the driver's index
	Device Device
}

// Pool has the Slots of a machine, and answers whether a Device is clear. It does not change after NewPool, so it needs no lock.
type Pool struct {
	inventory Inventory
	devices   []Device
	share     Share
	missing   *MissingError         // nil: every Device was listed
	floors    map[DeviceUUID]uint64 // bytes in use when nobody sits there
}

// NewPool asks for the Devices and how much of each is in use when idle, so it may block. A sick Device does not stop it: Clear and Status
// tell about that one. It fails when not one Device can be listed. The caller goes on owning inv.
func NewPool(ctx context.Context, inv Inventory, share Share) (*Pool, error) {
	devices, err := inv.Devices(ctx)
	missing, _ := errors.AsType[*MissingError](err)
	if err != nil && (missing == nil || len(devices) == 0) {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	p := &Pool{inventory: inv, devices: devices, share: max(1, share), missing: missing, floors: make(map[DeviceUUID]uint64)}
	for i, u := range p.useOfAll(ctx) {
		p.floors[devices[i].UUID] = u.idle()
	}
	if err := context.Cause(ctx); err != nil { // the floors may be wrong
		return nil, fmt.Errorf("read idle devices: %w", err)
	}
	return p, nil
}

// Slots lists the Slots in the order of their index, those of one Device side by side, in a slice of the caller's own.
func (p *Pool) Slots() []Slot {
	slots := make([]Slot, 0, len(p.devices)*int(p.share))
	for _, d := range p.devices {
		for range p.share {
			slots = append(slots, Slot{Index: len(slots), Device: d})
		}
	}
	return slots
}

// Inventory is the one that NewPool was given.
func (p *Pool) Inventory() Inventory { return p.inventory }

// Neighbours are the Leases on the other Slots of a Device. The zero value: there are none.
type Neighbours struct {
	Slots int
	Own   func(pid int) bool // whether a process is one of theirs; may be nil without Slots
}

// Clear reports whether a Lease can start on the Device beside its neighbours; it may block as Inventory does. *BusyError: not yet; any
// other error: nobody knows, so no either. Both rules must hold:
//
//  1. no process is listed there but the neighbours';
//  2. no more memory is in use than when NewPool looked, what the neighbours' processes have, and a slack. Memory comes back later than a
//     process goes, in some containers the list is always empty, and a difference of before and after the Lease deceives (Ollama's trap):
//     hence the fixed floor. (Where the list is empty, neighbours that use memory keep the other Slots shut.)
func (p *Pool) Clear(ctx context.Context, uuid DeviceUUID, beside Neighbours) error {
	u := p.use(ctx, uuid)
	if u.err != nil {
		return u.err
	}
	theirs := p.take(&u, beside)
	limit := p.floors[uuid] + theirs + clearSlack
	if len(u.processes) == 0 && u.memory.Used <= limit { // 1, 2
		return nil
	}
	return &BusyError{UUID: uuid, PIDs: u.pids(), Used: u.memory.Used, Limit: limit}
}

// take takes the neighbours' processes off the list, and returns how much memory is theirs: what the driver says, or their whole
// share where it does not say.
func (p *Pool) take(u *use, beside Neighbours) (theirs uint64) {
	if beside.Slots == 0 {
		return 0
	}
	told := true
	u.processes = slices.DeleteFunc(slices.Clone(u.processes), func(o Process) bool {
		if !beside.Own(o.PID) {
			return false
		}
		theirs += o.Memory + clearSlack // contexts have tables of their own
		told = told && o.Memory > 0
		return true
	})
	if !told {
		return u.memory.Total / uint64(p.share) * uint64(beside.Slots)
	}
	return theirs
}

// use is a Device at one moment.
type use struct {
	processes []Process
	memory    Memory
	err       error
}

// use asks for the list first: who leaves between the two questions is then still counted, never overlooked.
func (p *Pool) use(ctx context.Context, uuid DeviceUUID) (u use) {
	if u.processes, u.err = p.inventory.Processes(ctx, uuid); u.err != nil {
		return u
	}
	u.memory, u.err = p.inventory.Memory(ctx, uuid)
	return u
}

func (u use) pids() []int {
	pids := make([]int, len(u.processes))
	for i, p := range u.processes {
		pids[i] = p.PID
	}
	return pids
}

// idle is what would be in use without the listed processes: a worker of a host that crashed may still sit there when the next one starts.
// For a Device that could not be read it is 0, so that one stays shut until it is nearly empty.
func (u use) idle() uint64 {
	left := u.memory.Used
	for _, p := range u.processes {
		left -= min(left, p.Memory)
	}
	return left
}
