package gpu

import (
	"context"
	"sync"
	"time"
)

// Sensors are the measurements of a Device at one moment. nil: the driver does not report it. NVML measures temperature, power and
// ECC errors of a whole GPU only, so the instances of one GPU have the same values.
type Sensors struct {
	Utilization *int     `json:"utilization,omitempty"` // percent of the last sample period in which a kernel ran; never of a MIG instance
	Temperature *int     `json:"temperature,omitempty"` // of the GPU, in °C
	Power       *float64 `json:"power,omitempty"`       // of the GPU, in watts
	PowerLimit  *float64 `json:"powerLimit,omitempty"`  // above which the driver slows the GPU, in watts
	ECCErrors   *uint64  `json:"eccErrors,omitempty"`   // errors of the memory that were not corrected, since the driver was loaded
}

// SensorReader is implemented by inventories that can measure their Devices.
type SensorReader interface {
	// Sensors queries the driver, so it may block; errors as for Inventory.Memory. A measurement that the driver does not
	// report is no error.
	Sensors(ctx context.Context, uuid DeviceUUID) (Sensors, error)
}

// Sampler reads all Devices, and keeps the result for readers that must not wait for the driver. It may be used concurrently.
type Sampler struct {
	status func(context.Context) []DeviceStatus

	mu   sync.Mutex
	rows []DeviceStatus
	at   time.Time
}

// NewSampler returns a Sampler of the Devices that status reads, as Pool.Status does, without a sample.
func NewSampler(status func(context.Context) []DeviceStatus) *Sampler {
	return &Sampler{status: status}
}

// Sample reads all Devices now. It blocks as Pool.Status does. The rows must not be changed.
func (s *Sampler) Sample(ctx context.Context) []DeviceStatus {
	rows := s.status(ctx)
	if ctx.Err() == nil { // otherwise each row has the context's error
		s.mu.Lock()
		s.rows, s.at = rows, time.Now()
		s.mu.Unlock()
	}
	return rows
}

// Latest returns the last sample and its age, without a query to the driver. It returns nil before the first sample. The rows must
// not be changed.
func (s *Sampler) Latest() (rows []DeviceStatus, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows, time.Since(s.at)
}

// Within returns the last sample if it is younger than maxAge, otherwise a new one.
func (s *Sampler) Within(ctx context.Context, maxAge time.Duration) []DeviceStatus {
	if rows, age := s.Latest(); rows != nil && age < maxAge {
		return rows
	}
	return s.Sample(ctx)
}
