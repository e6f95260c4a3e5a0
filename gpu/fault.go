package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// FaultKind is a kind of Device failure.
type FaultKind string

// The kinds of fault that can be injected into a simulated Device.
const (
	FaultLost        FaultKind = "lost"         // the Device fell off the bus: every query fails
	FaultHang        FaultKind = "hang"         // the driver does not answer queries about the Device
	FaultMemoryStuck FaultKind = "memory-stuck" // the memory of an exited process stays in use
	FaultXid         FaultKind = "xid"          // the driver reported an error with this number
	FaultProcess     FaultKind = "process"      // a process that is not a worker uses the Device
	FaultClear       FaultKind = "clear"        // no fault, as after a repair
)

// Fault is a failure of a Device, or the end of one.
type Fault struct {
	Kind FaultKind
	Xid  int // the driver's number; FaultXid only
	PID  int // the process on the Device; FaultProcess only
}

// Faulter is implemented by simulated inventories only: faults of a real Device cannot be injected or removed by a
// command.
type Faulter interface {
	// Fault injects a fault into the Device, also during a Lease. It does not block. Of lost, hang and memory-stuck
	// only the latest applies; Xids and processes accumulate; clear removes all. After *UnknownDeviceError or
	// *GoneError nothing has changed.
	Fault(uuid DeviceUUID, f Fault) error
	// Faults lists the faults of the Device; nil for none or for an unknown Device. It does not block.
	Faults(uuid DeviceUUID) []Fault
}

// ParseFault reads lost, hang, memory-stuck, xid=N, process=PID or clear.
func ParseFault(text string) (Fault, error) {
	switch kind := FaultKind(text); kind {
	case FaultLost, FaultHang, FaultMemoryStuck, FaultClear:
		return Fault{Kind: kind}, nil
	}
	if number, ok := strings.CutPrefix(text, string(FaultXid)+"="); ok {
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			return Fault{Kind: FaultXid, Xid: n}, nil
		}
	}
	if number, ok := strings.CutPrefix(text, string(FaultProcess)+"="); ok {
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			return Fault{Kind: FaultProcess, PID: n}, nil
		}
	}
	return Fault{}, fmt.Errorf("unknown fault %q; use lost, hang, memory-stuck, xid=79 (any number above 0), process=PID, or clear", text)
}

func (f Fault) String() string {
	if f.Kind == FaultXid {
		return fmt.Sprintf("%s=%d", f.Kind, f.Xid)
	}
	if f.Kind == FaultProcess {
		return fmt.Sprintf("%s=%d", f.Kind, f.PID)
	}
	return string(f.Kind)
}

// MarshalText writes a Fault in the form that ParseFault reads, so that it is a string in JSON.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (f *Fault) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFault(string(text))
	return err
}
