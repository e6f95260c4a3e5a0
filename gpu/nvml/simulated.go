package nvml

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
	"spacehost/internal/lazyregexp"
)

// model holds the properties of a simulated Device.
type model struct {
	name string
	mib  uint64 // total memory, as nvidia-smi shows it
}

// models lists whole GPUs by the key that follows "mock:2x". MIG instances are in profiles.
var models = map[string]model{
	"A10G":         {"NVIDIA A10G", 23028},
	"A100":         {"NVIDIA A100-SXM4-80GB", 81920},
	"B200":         {"NVIDIA B200", 183359},
	"H100":         {"NVIDIA H100 80GB HBM3", 81559},
	"H200":         {"NVIDIA H200", 143771},
	"L4":           {"NVIDIA L4", 23034},
	"L40S":         {"NVIDIA L40S", 46068},
	"RTX-4090":     {"NVIDIA GeForce RTX 4090", 24564},
	"RTX-5090":     {"NVIDIA GeForce RTX 5090", 32607},
	"RTX-PRO-6000": {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887},
	"T4":           {"Tesla T4", 15360},
}

const (
	maxDevices     = 64
	idleMemory     = 512 << 20
	occupantMemory = 1 << 30 // above gpu.Pool's slack, so that an occupant counts by its memory too
)

// Simulation is an Inventory of simulated GPUs. Only NVML is simulated; the code above it is the real one.
type Simulation struct {
	*Inventory
	occupants map[gpu.DeviceUUID]*occupants
	events    simulatedEvents
}

var (
	_ gpu.Inventory = (*Simulation)(nil)
	_ gpu.Simulator = (*Simulation)(nil)
)

// Simulated creates the machine that spec describes: "2xH200"; "H200" for one; "3xH200-MIG-3g.71gb" for three MIG
// instances on as few GPUs as fit them. The UUIDs are the same at each start.
func Simulated(spec string) (*Simulation, error) { return SimulatedOn("", spec) }

// SimulatedOn is Simulated for one of several machines. The UUIDs differ for each name of a machine.
func SimulatedOn(machine, spec string) (*Simulation, error) {
	count, key, err := parse(spec)
	if err != nil {
		return nil, err
	}
	return simulateOn(machine, count, key, procStat)
}

// specPattern matches the optional count and the key. (strings.Cut does not work: RTX contains an x.)
var specPattern = lazyregexp.New(`^(?:(\d+)X)?(\D.*)$`)

func parse(spec string) (count int, key string, err error) {
	parts := specPattern.FindStringSubmatch(strings.ToUpper(spec))
	if parts == nil {
		return 0, "", unknownModel(spec)
	}
	_, mig := profiles[parts[2]]
	if _, whole := models[parts[2]]; !whole && !mig {
		return 0, "", unknownModel(spec)
	}
	count, key = 1, parts[2]
	if parts[1] != "" {
		count, err = strconv.Atoi(parts[1])
	}
	if err != nil || count < 1 || count > maxDevices {
		return 0, "", fmt.Errorf("simulate %q: the count must be 1 to %d devices", spec, maxDevices)
	}
	return count, key, nil
}

// unknownModel lists only the instance sizes of the model that the spec names, if any: the full list is long.
func unknownModel(spec string) error {
	if before, _, isMIG := strings.Cut(strings.ToUpper(spec), migInfix); isMIG {
		if sizes := profilesOf(before); len(sizes) > 0 {
			return fmt.Errorf("simulate %q: the instance sizes of that model are %s", spec, strings.Join(sizes, ", "))
		}
		return fmt.Errorf("simulate %q: MIG instances can be simulated for %s; example: 2xH200-MIG-3g.71gb", spec, strings.Join(migModels(), ", "))
	}
	return fmt.Errorf("simulate %q: use a count and a model (2xH200) or a MIG instance (2xH200-MIG-3g.71gb); the models are %s",
		spec, strings.Join(slices.Sorted(maps.Keys(models)), ", "))
}

func simulate(count int, key string, stat statReader) (*Simulation, error) {
	return simulateOn("", count, key, stat)
}

func simulateOn(machine string, count int, key string, stat statReader) (*Simulation, error) {
	seed := key // of the UUIDs
	if machine != "" {
		seed = machine + "/" + key
	}
	all, inOrder := make(map[gpu.DeviceUUID]*occupants), make([]*occupants, count)
	profile, mig := profiles[key]
	handles := make([]nvml.Device, count)
	for index := range handles {
		uuid := stableUUID(seed, index)
		if mig {
			uuid = stableInstanceUUID(seed, index)
		}
		inOrder[index] = &occupants{stat: stat, started: make(map[int]uint64)}
		all[uuid] = inOrder[index]
		if mig {
			handles[index] = simulatedInstance(uuid, profile, index, all[uuid])
		} else {
			handles[index] = &simulatedGPU{simulatedDevice(uuid, models[key], all[uuid]), inOrder[index : index+1]}
		}
	}
	if mig {
		handles = simulatedParents(seed, profile, handles, inOrder)
	}
	library, events := simulatedLibrary(handles), make(simulatedEvents, 64)
	library.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
	inventory, err := open(library, true)
	if err != nil {
		return nil, fmt.Errorf("open simulated machine: %w", err)
	}
	return &Simulation{Inventory: inventory, occupants: all, events: events}, nil
}

// Occupy is called by the host when a worker has been admitted to the Device.
func (s *Simulation) Occupy(uuid gpu.DeviceUUID, pid int) error {
	o, ok := s.occupants[uuid]
	if !ok {
		return &gpu.UnknownDeviceError{UUID: uuid}
	}
	return o.add(pid)
}

// stableUUID returns a UUID in the form of the driver: 8-4-4-4-12 hex digits.
func stableUUID(key string, index int) gpu.DeviceUUID { return stable("GPU", key, index) }

func stableInstanceUUID(key string, index int) gpu.DeviceUUID { return stable("MIG", key, index) }

func stable(kind, key string, index int) gpu.DeviceUUID {
	h := sha1.Sum(fmt.Appendf(nil, "spacehost/%s/%d", key, index))
	return gpu.DeviceUUID(fmt.Sprintf("%s-%x-%x-%x-%x-%x", kind, h[0:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

// simulatedLibrary sets every function that Inventory calls. The moq types of go-nvml panic at the others, and keep
// the arguments of each call forever (so calls after Open have none).
func simulatedLibrary(handles []nvml.Device) *mock.Interface {
	return &mock.Interface{
		InitFunc:           func() nvml.Return { return nvml.SUCCESS },
		ShutdownFunc:       func() nvml.Return { return nvml.SUCCESS },
		DeviceGetCountFunc: func() (int, nvml.Return) { return len(handles), nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(index int) (nvml.Device, nvml.Return) {
			return handles[index], nvml.SUCCESS
		},
		ExtensionsFunc: func() nvml.ExtendedInterface {
			return &mock.ExtendedInterface{LookupSymbolFunc: func(string) error { return nil }}
		},
	}
}

func simulatedDevice(uuid gpu.DeviceUUID, m model, o *occupants) *mock.Device {
	return &mock.Device{
		GetUUIDFunc:        func() (string, nvml.Return) { return string(uuid), nvml.SUCCESS },
		RegisterEventsFunc: func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS },
		GetNameFunc:        func() (string, nvml.Return) { return m.name, nvml.SUCCESS },
		GetMigModeFunc:     func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED },
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
			if ret := o.faults.wait(); ret != nvml.SUCCESS {
				return nvml.Memory{}, ret
			}
			total := m.mib << 20
			used := min(total, idleMemory+o.memory())
			return nvml.Memory{Total: total, Used: used, Free: total - used}, nvml.SUCCESS
		},
		GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
			if ret := o.faults.wait(); ret != nvml.SUCCESS {
				return nil, ret
			}
			var infos []nvml.ProcessInfo
			for _, pid := range o.alive() {
				infos = append(infos, nvml.ProcessInfo{Pid: uint32(pid), UsedGpuMemory: occupantMemory})
			}
			return infos, nvml.SUCCESS
		},
	}
}

// occupants are the processes on one simulated Device, and its faults.
type occupants struct {
	stat    statReader
	faults  faultState
	mu      sync.Mutex
	started map[int]uint64 // by pid: the start time, which distinguishes the process from a later one with the same pid
	staged  map[int]bool   // the pids added by Fault
	stuck   bool           // the memory of processes that exit is not freed
	leaked  uint64         // bytes that were not freed
}

func (o *occupants) add(pid int) error {
	start, err := startTime(o.stat, pid)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started[pid] = start
	return nil
}

// stage adds a process that is not a worker, until reset.
func (o *occupants) stage(pid int) error {
	if err := o.add(pid); err != nil {
		return &gpu.GoneError{PID: pid}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.staged == nil {
		o.staged = make(map[int]bool)
	}
	o.staged[pid] = true
	return nil
}

func (o *occupants) stagedFaults() (all []gpu.Fault) {
	for _, pid := range o.alive() {
		o.mu.Lock()
		if o.staged[pid] {
			all = append(all, gpu.Fault{Kind: gpu.FaultProcess, PID: pid})
		}
		o.mu.Unlock()
	}
	return all
}

func (o *occupants) alive() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	return slices.Sorted(maps.Keys(o.started))
}

func (o *occupants) memory() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	return occupantMemory*uint64(len(o.started)) + o.leaked
}

// setStuck decides whether the memory of processes that exit from now on is freed.
func (o *occupants) setStuck(stuck bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop() // by the previous rule
	o.stuck = stuck
}

// reset frees the leaked memory and removes the staged processes.
func (o *occupants) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	for pid := range o.staged {
		delete(o.started, pid)
	}
	clear(o.staged)
	o.stuck, o.leaked = false, 0
}

// drop removes the processes that have exited, as a driver does when a process ends. The caller holds mu.
func (o *occupants) drop() {
	before := len(o.started)
	maps.DeleteFunc(o.started, func(pid int, start uint64) bool {
		now, err := startTime(o.stat, pid)
		return err != nil || now != start
	})
	if o.stuck {
		o.leaked += occupantMemory * uint64(before-len(o.started))
	}
}
