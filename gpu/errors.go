package gpu

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrClosed answers every question put to an Inventory after its Close.
var ErrClosed = errors.New("gpu inventory is closed")

// UnknownDeviceError says that the machine has no such Device.
type UnknownDeviceError struct{ UUID DeviceUUID }

func (e *UnknownDeviceError) Error() string {
	return fmt.Sprintf("no device %s on this machine: `spacehost gpu` lists those there are", e.UUID)
}

// GoneError says that no process lives under a pid.
type GoneError struct{ PID int }

func (e *GoneError) Error() string {
	return fmt.Sprintf("no process lives under pid %d: name one that does, such as `sleep 600 & echo $!`", e.PID)
}

// NoLibraryError says that the machine has no NVML, so most likely no NVIDIA GPU.
type NoLibraryError struct{}

func (e *NoLibraryError) Error() string {
	return "libnvidia-ml.so.1 not found: install the NVIDIA driver (in a container, start it with --gpus all), or simulate with --gpus mock:1xH200"
}

// NoDriverError says that the library is there and the kernel's driver is not loaded.
type NoDriverError struct{}

func (e *NoDriverError) Error() string {
	return "the NVIDIA driver is not loaded: try `nvidia-smi`, then `sudo modprobe nvidia`; look into `dmesg` if that fails"
}

// NoPermissionError says that this user may not talk to the driver.
type NoPermissionError struct{}

func (e *NoPermissionError) Error() string {
	return "no permission to talk to the NVIDIA driver: check `ls -l /dev/nvidia*` and add this user to the group that owns them (often video)"
}

// VersionMismatchError says that library and kernel module are of different releases, as after an update without a reboot.
type VersionMismatchError struct{}

func (e *VersionMismatchError) Error() string {
	return "the NVIDIA library and the loaded driver are of different versions: reboot, or reload the nvidia kernel modules"
}

// LostError says that the Device fell off the bus or waits for a reset. It needs a person; until then nothing runs there.
type LostError struct{ UUID DeviceUUID }

func (e *LostError) Error() string {
	if e.UUID.IsInstance() {
		return fmt.Sprintf("device %s is lost to the driver: look for Xid in `dmesg`, then reset its GPU (`nvidia-smi -L` says which) or reboot", e.UUID)
	}
	return fmt.Sprintf("device %s is lost to the driver: look for Xid in `dmesg`, then `sudo nvidia-smi -r -i %s` or reboot", e.UUID, e.UUID)
}

// NoInstanceError says that a GPU is in MIG mode and was not cut yet, so that there is nothing of it to lend.
type NoInstanceError struct {
	UUID  DeviceUUID // of the whole GPU
	Index int
}

func (e *NoInstanceError) Error() string {
	return fmt.Sprintf("%s is in MIG mode and has no instance: `nvidia-smi mig -i %d -lgip` lists the sizes, `sudo nvidia-smi mig -i %d -cgi SIZE -C` "+
		"makes one, `sudo nvidia-smi -i %d -mig 0` leaves the mode", e.UUID, e.Index, e.Index, e.Index)
}

// NotSupportedError says that this Device or this driver cannot do what was tried.
type NotSupportedError struct {
	UUID  DeviceUUID // empty: the library as a whole
	Tried string
}

func (e *NotSupportedError) Error() string {
	if e.UUID == "" {
		return fmt.Sprintf("%s: this NVIDIA driver does not support it", e.Tried)
	}
	return fmt.Sprintf("%s: device %s does not support it", e.Tried, e.UUID)
}

// HungError says that the driver did not answer in time. The question stays open, and until it returns no other is asked about that Device.
type HungError struct {
	UUID  DeviceUUID // empty: the library as a whole
	After time.Duration
}

func (e *HungError) Error() string {
	subject := "the NVIDIA driver"
	if e.UUID != "" {
		subject += " on device " + string(e.UUID)
	}
	return fmt.Sprintf("%s did not answer within %s: look for Xid in `dmesg`; a reboot may be needed", subject, e.After)
}

// MissingError says which Devices did not tell who they are, so that they cannot be used. The others are not touched by it.
type MissingError struct{ Reasons map[int]error } // by index

func (e *MissingError) Error() string {
	var words []string
	for _, index := range slices.Sorted(maps.Keys(e.Reasons)) {
		words = append(words, fmt.Sprintf("device at index %d: %v", index, e.Reasons[index]))
	}
	return "cannot read every device: " + strings.Join(words, "; ")
}

// DriverError is any other refusal of the driver, in its own words.
type DriverError struct{ Tried, Reason string }

func (e *DriverError) Error() string {
	return fmt.Sprintf("%s: the NVIDIA driver says %s", e.Tried, e.Reason)
}

// BusyError says why a Device is not Clear: somebody sits on it, or its memory has not come back.
type BusyError struct {
	UUID  DeviceUUID
	PIDs  []int
	Used  uint64 // bytes
	Limit uint64 // bytes that count as idle there
}

func (e *BusyError) Error() string {
	if len(e.PIDs) == 0 {
		return fmt.Sprintf("device %s is busy: nobody is listed on it, but %s are in use (idle is up to %s)", e.UUID, mebibytes(e.Used), mebibytes(e.Limit))
	}
	pids := make([]string, len(e.PIDs))
	for i, pid := range e.PIDs {
		pids[i] = strconv.Itoa(pid)
	}
	return fmt.Sprintf("device %s is busy: pid %s on it, %s in use", e.UUID, strings.Join(pids, ", "), mebibytes(e.Used))
}

// mebibytes speaks the unit of nvidia-smi, so that the two can be compared.
func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
