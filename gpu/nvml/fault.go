package nvml

import (
	"slices"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

var _ gpu.Faulter = (*Simulation)(nil)

// Fault is called by the operator's command. The effect appears where a real driver would show it: in the return
// values of NVML.
func (s *Simulation) Fault(uuid gpu.DeviceUUID, f gpu.Fault) error {
	o, ok := s.occupants[uuid]
	if !ok {
		return &gpu.UnknownDeviceError{UUID: uuid}
	}
	switch f.Kind {
	case gpu.FaultProcess:
		return o.stage(f.PID)
	case gpu.FaultXid:
		o.faults.record(f)
		d, err := s.device(uuid)
		if err != nil { // it could not be read at Open: its events are not watched
			return nil
		}
		reporter, gi, ci := d.eventSource(f.Xid)
		s.events.emit(reporter, f.Xid, gi, ci)
		return nil
	case gpu.FaultClear:
		o.reset()
	default:
		o.setStuck(f.Kind == gpu.FaultMemoryStuck)
	}
	o.faults.set(f.Kind)
	return nil
}

// offTheBus is the Xid of a GPU that is lost as a whole (NVIDIA, "Xid Errors").
const offTheBus = 79

// eventSource returns the location that a driver would report for the error. An error of a whole GPU names no
// instance.
func (d *device) eventSource(xid int) (reporter nvml.Device, gi, ci uint32) {
	if reporter, _ = d.reporter(); d.instance == nil || xid == offTheBus {
		return reporter, anyInstance, anyInstance
	}
	return reporter, d.instance.gi, d.instance.ci
}

// Faults lists the injected faults that have not been cleared.
func (s *Simulation) Faults(uuid gpu.DeviceUUID) []gpu.Fault {
	o, ok := s.occupants[uuid]
	if !ok {
		return nil
	}
	return append(o.faults.list(), o.stagedFaults()...)
}

// faultState holds the faults of one simulated Device. The zero value means none.
type faultState struct {
	mu   sync.Mutex
	kind gpu.FaultKind // "", or FaultLost, FaultHang, FaultMemoryStuck
	over chan struct{} // closed when the hang ends; nil: none
	xids []gpu.Fault
}

// set replaces the previous fault; calls that hang in it continue.
func (t *faultState) set(kind gpu.FaultKind) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		close(t.over)
		t.over = nil
	}
	switch t.kind = kind; kind {
	case gpu.FaultHang:
		t.over = make(chan struct{})
	case gpu.FaultClear:
		t.kind, t.xids = "", nil
	}
}

func (t *faultState) record(xid gpu.Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.xids, xid) {
		t.xids = append(t.xids, xid)
	}
}

func (t *faultState) list() []gpu.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []gpu.Fault
	if t.kind != "" {
		all = append(all, gpu.Fault{Kind: t.kind})
	}
	return append(all, t.xids...)
}

// wait returns the result of a call about the Device. It blocks as long as the Device hangs, like a wedged driver.
func (t *faultState) wait() nvml.Return {
	for {
		kind, over := t.current()
		if over == nil {
			if kind == gpu.FaultLost {
				return nvml.ERROR_GPU_IS_LOST
			}
			return nvml.SUCCESS
		}
		<-over
	}
}

func (t *faultState) current() (gpu.FaultKind, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kind, t.over
}
