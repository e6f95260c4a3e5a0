// Package nvml implements gpu.Inventory with NVIDIA's management library (NVML), real or simulated. It is the only
// package that imports go-nvml.
//
// # Types
//
// Inventory is the real machine, opened by Open. Simulation is an Inventory over a simulated library: only NVML is
// simulated, the code above it is the same. Both are opened by the command line of spacehost and used through
// gpu.Pool.
//
// A device is a whole GPU or a MIG instance with its NVML handle. A parent is a GPU in MIG mode: its instances are
// leased, the GPU itself is not. Every call into the library passes a guard, which admits one call at a time and has
// a time limit.
//
// # Failures
//
// A call that hangs ends with *gpu.HungError after its limit; its goroutine stays until the driver answers. A GPU
// that cannot be read at Open is reported by *gpu.MissingError and does not hide the others. check maps the return
// codes of NVML to the error types of package gpu.
package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

const (
	callLimit = 2 * time.Second
	// openLimit is longer: without the persistence daemon, the driver initializes every GPU of the machine when the
	// library is opened.
	openLimit = 30 * time.Second
)

// Inventory holds the library open from Open to Close, and the Devices found at Open.
type Inventory struct {
	lib       nvml.Interface
	simulated bool
	devices   []*device               // ordered by index
	missing   *gpu.MissingError       // nil: all could be read
	events    *guard                  // for the event set
	guards    []*guard                // every guard that ever admitted a call; Close waits for each
	lost      map[gpu.DeviceUUID]bool // whole GPUs that Watch has reported as lost; used by Watch only
	closed    atomic.Bool
	close     func() error // runs shutdown once
}

// device is a Device with its handle, which stays valid until Shutdown. The handle is used only behind the guard.
type device struct {
	gpu.Device
	handle   nvml.Device
	guard    *guard
	instance *instance // nil: a whole GPU
}

var _ gpu.Inventory = (*Inventory)(nil)

// Open loads the machine's library and reads its Devices. It may take openLimit or longer on a faulty machine.
// *gpu.NoLibraryError, *gpu.NoDriverError, *gpu.NoPermissionError and *gpu.VersionMismatchError name what is missing.
func Open() (*Inventory, error) { return open(nvml.New(), false) }

func open(lib nvml.Interface, simulated bool) (*Inventory, error) {
	i := &Inventory{lib: lib, simulated: simulated}
	i.close = sync.OnceValue(i.shutdown)
	count, err := do(context.Background(), newGuard("", openLimit), i.start)
	if err != nil {
		return nil, err
	}
	i.events = newGuard("", callLimit+eventWait)
	i.guards = append(i.guards, i.events)
	for index := range count {
		i.add(index)
	}
	return i, nil
}

func (i *Inventory) start() (int, error) {
	if err := check("", "open NVML", i.lib.Init()); err != nil {
		return 0, err
	}
	count, ret := i.lib.DeviceGetCount()
	err := check("", "count devices", ret)
	if err != nil {
		i.lib.Shutdown()
	}
	return count, err
}

// add reads one GPU behind its own guard, so that a GPU that hangs does not hide the others.
func (i *Inventory) add(index int) {
	opening := newGuard("", openLimit)
	i.guards = append(i.guards, opening)
	found, err := do(context.Background(), opening, func() (readResult, error) { return i.read(index) })
	switch {
	case err != nil:
		i.miss(index, err)
	case found.parent != nil:
		i.addInstances(found.parent)
	default:
		i.devices, i.guards = append(i.devices, found.device), append(i.guards, found.guard)
	}
}

func (i *Inventory) miss(index int, why error) {
	if i.missing == nil {
		i.missing = &gpu.MissingError{Reasons: make(map[int]error)}
	}
	if before := i.missing.Reasons[index]; before != nil {
		why = fmt.Errorf("%w; %w", before, why)
	}
	i.missing.Reasons[index] = why
}

// readResult is a GPU that is leased as a whole, or the parent of MIG instances.
type readResult struct {
	*device
	parent *parent
}

func (i *Inventory) read(index int) (readResult, error) {
	handle, ret := i.lib.DeviceGetHandleByIndex(index)
	if err := check("", "open device", ret); err != nil {
		return readResult{}, err
	}
	mig, err := i.migMode(handle)
	if err != nil {
		return readResult{}, err
	}
	if mig {
		p, err := openParent(handle, index)
		return readResult{parent: p}, err
	}
	d, err := i.describe(handle, index)
	return readResult{device: d}, err
}

func (i *Inventory) describe(handle nvml.Device, index int) (*device, error) {
	id, ret := handle.GetUUID()
	if err := check("", "read UUID", ret); err != nil {
		return nil, err
	}
	uuid := gpu.DeviceUUID(id)
	name, ret := handle.GetName()
	if err := check(uuid, "read name", ret); err != nil {
		return nil, err
	}
	memory, ret := handle.GetMemoryInfo()
	if err := check(uuid, "read memory", ret); err != nil {
		return nil, err
	}
	d := gpu.Device{UUID: uuid, Index: index, Name: name, MemoryTotal: memory.Total, Simulated: i.simulated}
	return &device{Device: d, handle: handle, guard: newGuard(uuid, callLimit)}, nil
}

// Devices does not block: it returns the list made at Open.
func (i *Inventory) Devices(ctx context.Context) ([]gpu.Device, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if i.closed.Load() {
		return nil, gpu.ErrClosed
	}
	devices := make([]gpu.Device, len(i.devices))
	for n, d := range i.devices {
		devices[n] = d.Device
	}
	if i.missing != nil {
		return devices, i.missing
	}
	return devices, nil
}

// Memory uses the first version of the NVML call. Every driver has it (an absent symbol ends the program), and it
// counts the driver's own memory as used, so that used + free = total.
func (i *Inventory) Memory(ctx context.Context, uuid gpu.DeviceUUID) (gpu.Memory, error) {
	d, err := i.device(uuid)
	if err != nil {
		return gpu.Memory{}, err
	}
	return do(ctx, d.guard, d.readMemory)
}

// Usage lists compute contexts only: the display of a desktop does not block its Device. Both reads take one turn,
// because each grant of a GPU waits for them.
func (i *Inventory) Usage(ctx context.Context, uuid gpu.DeviceUUID) ([]gpu.Process, gpu.Memory, error) {
	d, err := i.device(uuid)
	if err != nil {
		return nil, gpu.Memory{}, err
	}
	type usage struct {
		processes []gpu.Process
		memory    gpu.Memory
	}
	u, err := do(ctx, d.guard, func() (u usage, err error) {
		if u.processes, err = d.readProcesses(); err == nil {
			u.memory, err = d.readMemory()
		}
		return u, err
	})
	return u.processes, u.memory, err
}

func (d *device) readMemory() (gpu.Memory, error) {
	m, ret := d.handle.GetMemoryInfo()
	return gpu.Memory{Total: m.Total, Used: m.Used, Free: m.Free}, check(d.UUID, "read memory", ret)
}

func (d *device) readProcesses() ([]gpu.Process, error) {
	infos, ret := d.processes()
	if ret == nvml.ERROR_NOT_SUPPORTED { // WSL2 and some vGPUs: as in a container, only the memory shows use
		return nil, nil
	}
	return merge(infos), check(d.UUID, "list processes", ret)
}

func (i *Inventory) device(uuid gpu.DeviceUUID) (*device, error) {
	for _, d := range i.devices {
		if d.UUID == uuid {
			return d, nil
		}
	}
	return nil, &gpu.UnknownDeviceError{UUID: uuid}
}

// merge combines all entries with the same pid into one Process (drivers list one per context), sorted by pid.
func merge(infos []nvml.ProcessInfo) []gpu.Process {
	byPID := make(map[int]gpu.Process)
	for _, info := range infos {
		p := gpu.Process{PID: int(info.Pid), Memory: byPID[int(info.Pid)].Memory}
		if info.UsedGpuMemory != notAvailable {
			p.Memory += info.UsedGpuMemory
		}
		byPID[p.PID] = p
	}
	return slices.SortedFunc(maps.Values(byPID), func(a, b gpu.Process) int { return cmp.Compare(a.PID, b.PID) })
}

// notAvailable is NVML_VALUE_NOT_AVAILABLE, (ull)-1 in nvml.h: returned for MIG without permission, and on Windows.
const notAvailable = ^uint64(0)

// Close closes the library after the running calls have returned: unloading it during a call would end the program.
// If a call hangs, the library stays loaded and Close returns *gpu.HungError.
func (i *Inventory) Close() error { return i.close() }

func (i *Inventory) shutdown() error {
	i.closed.Store(true)
	var hung []error
	for _, g := range i.guards {
		hung = append(hung, g.close())
	}
	if err := errors.Join(hung...); err != nil {
		return err
	}
	_, err := do(context.Background(), newGuard("", callLimit), func() (struct{}, error) {
		return struct{}{}, check("", "close NVML", i.lib.Shutdown())
	})
	return err
}
