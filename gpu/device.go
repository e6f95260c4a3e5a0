package gpu

import (
	"strings"

	"go.uber.org/zap/zapcore"
)

// DeviceUUID is the key of a Device everywhere: GPU-… for a whole GPU, MIG-… for a MIG instance.
type DeviceUUID string

// IsInstance reports whether the Device is a MIG instance, not a whole GPU.
func (u DeviceUUID) IsInstance() bool { return strings.HasPrefix(string(u), "MIG-") }

// Device is a GPU or a MIG instance.
type Device struct {
	UUID        DeviceUUID `json:"uuid"`
	Index       int        `json:"index"` // for display only: the driver may renumber at each boot. A MIG instance has the index of its GPU
	Name        string     `json:"name"`
	MemoryTotal uint64     `json:"memoryTotal"` // bytes
	Simulated   bool       `json:"simulated"`
}

// MarshalLogObject lets callers log a Device as zap.Object("device", d).
func (d Device) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("uuid", string(d.UUID))
	enc.AddInt("index", d.Index)
	enc.AddString("name", d.Name)
	if d.Simulated {
		enc.AddBool("simulated", true)
	}
	return nil
}

// Memory is the memory of a Device, in bytes. Used includes what the driver itself reserves, so it is above 0 on an
// idle Device.
type Memory struct {
	Total, Used, Free uint64
}

// Process is a process that has a compute context on a Device.
type Process struct {
	PID    int    `json:"pid"`    // in the driver's pid namespace: in a container there may be no process with this pid
	Memory uint64 `json:"memory"` // bytes; 0 where the driver does not report it
}
