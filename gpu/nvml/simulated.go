package nvml

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"spacehost/gpu"
)

// model is what a simulated Device says of itself.
type model struct {
	name string
	mib  uint64 // in all, as nvidia-smi shows it
}

// models of whole GPUs by the word that stands after "mock:2x". MIG instances are in profiles.
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
	mostDevices    = 64
	idleMemory     = 512 << 20
	occupantMemory = 1 << 30 // above gpu.Pool's slack, so that an occupant counts by its memory too
)

// Simulation is an Inventory of GPUs that are not there: NVML alone is simulated, the code above it is the true one.
type Simulation struct {
	*Inventory
	occupants map[gpu.DeviceUUID]*occupants
	events    simulatedEvents
}

var (
	_ gpu.Inventory = (*Simulation)(nil)
	_ gpu.Simulator = (*Simulation)(nil)
)

// Simulated makes the machine that spec describes: "2xH200", or "H200" for one; "3xH200-MIG-3g.71gb" for three MIG instances, on as few
// GPUs as have room for them. Its UUIDs are the same at each start.
func Simulated(spec string) (*Simulation, error) {
	count, word, err := parse(spec)
	if err != nil {
		return nil, err
	}
	return simulate(count, word, procStat)
}

// spelling is the count, if any, and the word. (RTX has an x of its own, so this is no case for strings.Cut.)
var spelling = regexp.MustCompile(`^(?:(\d+)X)?(\D.*)$`)

func parse(spec string) (count int, word string, err error) {
	parts := spelling.FindStringSubmatch(strings.ToUpper(spec))
	if parts == nil {
		return 0, "", unknownModel(spec)
	}
	_, cut := profiles[parts[2]]
	if _, whole := models[parts[2]]; !whole && !cut {
		return 0, "", unknownModel(spec)
	}
	count, word = 1, parts[2]
	if parts[1] != "" {
		count, err = strconv.Atoi(parts[1])
	}
	if err != nil || count < 1 || count > mostDevices {
		return 0, "", fmt.Errorf("simulate %q: want 1 to %d devices", spec, mostDevices)
	}
	return count, word, nil
}

// unknownModel lists the instances of the model only, if the spec names one: all of them are many.
func unknownModel(spec string) error {
	if before, _, isMIG := strings.Cut(strings.ToUpper(spec), migWord); isMIG {
		if sizes := profilesOf(before); len(sizes) > 0 {
			return fmt.Errorf("simulate %q: that model is cut into %s", spec, strings.Join(sizes, ", "))
		}
		return fmt.Errorf("simulate %q: MIG instances are simulated of %s, as in 2xH200-MIG-3g.71gb", spec, strings.Join(cutModels(), ", "))
	}
	return fmt.Errorf("simulate %q: want a count and a model as in 2xH200, or a MIG instance of one as in 2xH200-MIG-3g.71gb; the models are %s",
		spec, strings.Join(slices.Sorted(maps.Keys(models)), ", "))
}

func simulate(count int, word string, stat statReader) (*Simulation, error) {
	all := make(map[gpu.DeviceUUID]*occupants)
	profile, cut := profiles[word]
	handles := make([]nvml.Device, count)
	for index := range handles {
		uuid := stableUUID(word, index)
		if cut {
			uuid = stableInstanceUUID(word, index)
		}
		all[uuid] = &occupants{stat: stat, started: make(map[int]uint64)}
		if cut {
			handles[index] = simulatedInstance(uuid, profile, index, all[uuid])
		} else {
			handles[index] = simulatedDevice(uuid, models[word], all[uuid])
		}
	}
	if cut {
		handles = simulatedParents(word, profile, handles)
	}
	library, events := simulatedLibrary(handles), make(simulatedEvents, 64)
	library.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return events, nvml.SUCCESS }
	inventory, err := open(library, true)
	if err != nil {
		return nil, fmt.Errorf("open simulated machine: %w", err)
	}
	return &Simulation{Inventory: inventory, occupants: all, events: events}, nil
}

// Occupy is told by the host once a worker has been allowed onto the Device.
func (s *Simulation) Occupy(uuid gpu.DeviceUUID, pid int) error {
	there, ok := s.occupants[uuid]
	if !ok {
		return &gpu.UnknownDeviceError{UUID: uuid}
	}
	return there.add(pid)
}

// stableUUID looks like a driver's: 8-4-4-4-12 hex digits.
func stableUUID(word string, index int) gpu.DeviceUUID { return stable("GPU", word, index) }

func stableInstanceUUID(word string, index int) gpu.DeviceUUID { return stable("MIG", word, index) }

func stable(kind, word string, index int) gpu.DeviceUUID {
	h := sha1.Sum(fmt.Appendf(nil, "spacehost/%s/%d", word, index))
	return gpu.DeviceUUID(fmt.Sprintf("%s-%x-%x-%x-%x-%x", kind, h[0:4], h[4:6], h[6:8], h[8:10], h[10:16]))
}

// simulatedLibrary sets all that Inventory calls: go-nvml's moq types panic at the rest, and keep the arguments of each call for ever
// (so calls after Open have none).
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

func simulatedDevice(uuid gpu.DeviceUUID, m model, there *occupants) *mock.Device {
	return &mock.Device{
		GetUUIDFunc:        func() (string, nvml.Return) { return string(uuid), nvml.SUCCESS },
		RegisterEventsFunc: func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS },
		GetNameFunc:        func() (string, nvml.Return) { return m.name, nvml.SUCCESS },
		GetMigModeFunc:     func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED },
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
			if ret := there.trouble.meet(); ret != nvml.SUCCESS {
				return nvml.Memory{}, ret
			}
			total := m.mib << 20
			used := min(total, idleMemory+there.memory())
			return nvml.Memory{Total: total, Used: used, Free: total - used}, nvml.SUCCESS
		},
		GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
			if ret := there.trouble.meet(); ret != nvml.SUCCESS {
				return nil, ret
			}
			var infos []nvml.ProcessInfo
			for _, pid := range there.alive() {
				infos = append(infos, nvml.ProcessInfo{Pid: uint32(pid), UsedGpuMemory: occupantMemory})
			}
			return infos, nvml.SUCCESS
		},
	}
}

// occupants are the processes on one simulated Device, and the trouble it has.
type occupants struct {
	stat    statReader
	trouble trouble
	mu      sync.Mutex
	started map[int]uint64 // by pid: the start time that tells it from a later process of the same pid
	staged  map[int]bool   // of these, who was put there by Fault
	keeps   bool           // the memory of those that go
	kept    uint64         // bytes of those that have gone
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

// stage puts one there that is no worker, until free.
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

func (o *occupants) stagedOnes() (all []gpu.Fault) {
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
	return occupantMemory*uint64(len(o.started)) + o.kept
}

// keep decides what becomes of the memory of those that go from now on.
func (o *occupants) keep(stuck bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop() // by the rule until now
	o.keeps = stuck
}

// free gives back what was kept, and takes away who was staged.
func (o *occupants) free() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	for pid := range o.staged {
		delete(o.started, pid)
	}
	clear(o.staged)
	o.keeps, o.kept = false, 0
}

// drop forgets those that are gone, as a driver does when a process ends. The caller holds mu.
func (o *occupants) drop() {
	before := len(o.started)
	maps.DeleteFunc(o.started, func(pid int, start uint64) bool {
		now, err := startTime(o.stat, pid)
		return err != nil || now != start
	})
	if o.keeps {
		o.kept += occupantMemory * uint64(before-len(o.started))
	}
}
