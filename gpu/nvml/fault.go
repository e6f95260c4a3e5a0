package nvml

import (
	"slices"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

var _ gpu.Faulter = (*Simulation)(nil)

// Fault is told by the operator. What comes of it shows where it would show with a true driver: in the answers of NVML.
func (s *Simulation) Fault(uuid gpu.DeviceUUID, f gpu.Fault) error {
	there, ok := s.occupants[uuid]
	if !ok {
		return &gpu.UnknownDeviceError{UUID: uuid}
	}
	switch f.Kind {
	case gpu.FaultProcess:
		return there.stage(f.PID)
	case gpu.FaultXid:
		there.trouble.record(f)
		d, err := s.device(uuid)
		if err != nil { // it could not be read at Open: nobody listens to it
			return nil
		}
		reporter, gi, ci := d.about(f.Xid)
		s.events.happen(reporter, f.Xid, gi, ci)
		return nil
	case gpu.FaultClear:
		there.free()
	default:
		there.keep(f.Kind == gpu.FaultMemoryStuck)
	}
	there.trouble.set(f.Kind)
	return nil
}

// offTheBus is the Xid of a GPU that has gone as a whole (NVIDIA, "Xid Errors").
const offTheBus = 79

// about is what a driver would say of where the error was. One of a whole GPU names none of its instances.
func (d *device) about(xid int) (reporter nvml.Device, gi, ci uint32) {
	if reporter, _ = d.reporter(); d.instance == nil || xid == offTheBus {
		return reporter, anyInstance, anyInstance
	}
	return reporter, d.instance.gi, d.instance.ci
}

// Faults lists what Fault has done and clear has not undone.
func (s *Simulation) Faults(uuid gpu.DeviceUUID) []gpu.Fault {
	there, ok := s.occupants[uuid]
	if !ok {
		return nil
	}
	return append(there.trouble.list(), there.stagedOnes()...)
}

// trouble is what one simulated Device has. The zero value is none.
type trouble struct {
	mu   sync.Mutex
	kind gpu.FaultKind // "", or FaultLost, FaultHang, FaultMemoryStuck
	over chan struct{} // closed when the hang ends; nil: none
	xids []gpu.Fault
}

// set replaces the trouble that was; whoever hangs in it comes out.
func (t *trouble) set(kind gpu.FaultKind) {
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

func (t *trouble) record(xid gpu.Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.xids, xid) {
		t.xids = append(t.xids, xid)
	}
}

func (t *trouble) list() []gpu.Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []gpu.Fault
	if t.kind != "" {
		all = append(all, gpu.Fault{Kind: t.kind})
	}
	return append(all, t.xids...)
}

// meet is what a call about the Device runs into. It blocks for as long as the Device hangs, as a wedged driver does.
func (t *trouble) meet() nvml.Return {
	for {
		kind, over := t.now()
		if over == nil {
			if kind == gpu.FaultLost {
				return nvml.ERROR_GPU_IS_LOST
			}
			return nvml.SUCCESS
		}
		<-over
	}
}

func (t *trouble) now() (gpu.FaultKind, chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kind, t.over
}
