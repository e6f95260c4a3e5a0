package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// FaultKind is what can go wrong with a Device.
type FaultKind string

// The kinds of trouble that a simulated Device can be given.
const (
	FaultLost        FaultKind = "lost"         // it fell off the bus: every question to it fails
	FaultHang        FaultKind = "hang"         // the driver does not answer about it
	FaultMemoryStuck FaultKind = "memory-stuck" // the memory of a process that has gone stays in use
	FaultXid         FaultKind = "xid"          // the driver has reported an error by this number
	FaultProcess     FaultKind = "process"      // a process sits on it that no worker is
	FaultClear       FaultKind = "clear"        // no trouble: as after a repair
)

// Fault is a trouble, or its end.
type Fault struct {
	Kind FaultKind
	Xid  int // the driver's number; FaultXid only
	PID  int // who sits there; FaultProcess only
}

// Faulter is implemented by simulated inventories only: nobody gives a true Device a trouble, or takes one away, by a word.
type Faulter interface {
	// Fault gives the Device a trouble from now on, also in the middle of a Lease. It does not block. Of lost, hang and memory-stuck a
	// Device has one, the last given; Xids and processes add up; clear ends all. *UnknownDeviceError, *GoneError: nothing was done.
	Fault(uuid DeviceUUID, f Fault) error
	// Faults lists what the Device has, nil for none or an unknown one. It does not block.
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
	return Fault{}, fmt.Errorf("no fault %q: say lost, hang, memory-stuck, xid=79 (any number above 0), process=PID, or clear", text)
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

// MarshalText writes a Fault as ParseFault reads it, so that it is a string in JSON.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is MarshalText's way back.
func (f *Fault) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFault(string(text))
	return err
}
