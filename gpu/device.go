// Package gpu knows the devices: inventory, health, memory, who sits on them.
package gpu

import (
	"strings"

	"go.uber.org/zap/zapcore"
)

// DeviceUUID is the key of a Device everywhere: GPU-… for a whole one, MIG-… for an instance of one.
type DeviceUUID string

// IsInstance tells a MIG instance from a whole GPU.
func (u DeviceUUID) IsInstance() bool { return strings.HasPrefix(string(u), "MIG-") }

// Device is a GPU or a MIG instance.
type Device struct {
	UUID        DeviceUUID `json:"uuid"`
	Index       int        `json:"index"` // for display only: the driver may number anew at each boot. That of its GPU for a MIG instance
	Name        string     `json:"name"`
	MemoryTotal uint64     `json:"memoryTotal"` // bytes
	Simulated   bool       `json:"simulated"`
}

// MarshalLogObject makes zap.Object("device", d) the way to log a Device.
func (d Device) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("uuid", string(d.UUID))
	enc.AddInt("index", d.Index)
	enc.AddString("name", d.Name)
	if d.Simulated {
		enc.AddBool("simulated", true)
	}
	return nil
}

// Memory is what a Device has, in bytes. Used counts what the driver itself keeps, so an idle Device shows some too.
type Memory struct {
	Total, Used, Free uint64
}

// Process is one that has a compute context on a Device.
type Process struct {
	PID    int    `json:"pid"`    // as the driver sees it: in a container it may be nobody's here
	Memory uint64 `json:"memory"` // bytes; 0 where the driver does not tell
}
