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

// ErrClosed is returned by every method of an Inventory after Close.
var ErrClosed = errors.New("gpu inventory is closed")

// UnknownDeviceError reports that the machine has no such Device.
type UnknownDeviceError struct{ UUID DeviceUUID }

func (e *UnknownDeviceError) Error() string {
	return fmt.Sprintf("no device %s on this machine; run `spacehost gpu` to list its devices", e.UUID)
}

// GoneError reports that no running process has the pid.
type GoneError struct{ PID int }

func (e *GoneError) Error() string {
	return fmt.Sprintf("no running process has pid %d; pass the pid of a running process, such as `sleep 600 & echo $!`", e.PID)
}

// NoLibraryError reports that the machine has no NVML library, so most likely no NVIDIA GPU.
type NoLibraryError struct{}

func (e *NoLibraryError) Error() string {
	return "libnvidia-ml.so.1 not found: install the NVIDIA driver (in a container, start it with --gpus all), or simulate with --gpus mock:1xH200"
}

// NoDriverError reports that the library is installed but the kernel driver is not loaded.
type NoDriverError struct{}

func (e *NoDriverError) Error() string {
	return "the NVIDIA driver is not loaded: try `nvidia-smi`, then `sudo modprobe nvidia`; check `dmesg` if that fails"
}

// NoPermissionError reports that this user may not access the driver.
type NoPermissionError struct{}

func (e *NoPermissionError) Error() string {
	return "no permission to access the NVIDIA driver: check `ls -l /dev/nvidia*` and add this user to the group that owns these files (often video)"
}

// VersionMismatchError reports that the library and the kernel module have different versions, as after an update
// without a reboot.
type VersionMismatchError struct{}

func (e *VersionMismatchError) Error() string {
	return "the NVIDIA library and the loaded driver have different versions: reboot, or reload the nvidia kernel modules"
}

// LostError reports that the Device fell off the bus or needs a reset. An operator must act; until then nothing runs
// on the Device.
type LostError struct{ UUID DeviceUUID }

func (e *LostError) Error() string {
	if e.UUID.IsInstance() {
		return fmt.Sprintf("device %s is lost to the driver: look for Xid in `dmesg`, then reset its GPU (`nvidia-smi -L` shows which) or reboot", e.UUID)
	}
	return fmt.Sprintf("device %s is lost to the driver: look for Xid in `dmesg`, then `sudo nvidia-smi -r -i %s` or reboot", e.UUID, e.UUID)
}

// NoInstanceError reports that a GPU is in MIG mode without any MIG instance, so nothing on it can be leased.
type NoInstanceError struct {
	UUID  DeviceUUID // of the whole GPU
	Index int
}

func (e *NoInstanceError) Error() string {
	return fmt.Sprintf("%s is in MIG mode and has no instance: `nvidia-smi mig -i %d -lgip` lists the sizes, `sudo nvidia-smi mig -i %d -cgi SIZE -C` "+
		"creates one, `sudo nvidia-smi -i %d -mig 0` turns MIG mode off", e.UUID, e.Index, e.Index, e.Index)
}

// NotSupportedError reports that this Device or this driver does not support an operation.
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

// HungError reports that the driver did not answer in time. The call stays open; until it returns, no other call
// about that Device is made.
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

// MissingError lists the Devices that could not be identified, so they cannot be used. Other Devices are not
// affected.
type MissingError struct{ Reasons map[int]error } // by index

func (e *MissingError) Error() string {
	var words []string
	for _, index := range slices.Sorted(maps.Keys(e.Reasons)) {
		words = append(words, fmt.Sprintf("device at index %d: %v", index, e.Reasons[index]))
	}
	return "cannot read every device: " + strings.Join(words, "; ")
}

// DriverError is any other error of the driver, with the driver's text.
type DriverError struct{ Tried, Reason string }

func (e *DriverError) Error() string {
	return fmt.Sprintf("%s: the NVIDIA driver returned %s", e.Tried, e.Reason)
}

// BusyError explains why a Device is not clear: processes are listed on it, or its memory has not been freed.
type BusyError struct {
	UUID  DeviceUUID
	PIDs  []int
	Used  uint64 // bytes
	Limit uint64 // bytes that count as idle there
}

func (e *BusyError) Error() string {
	if len(e.PIDs) == 0 {
		return fmt.Sprintf("device %s is busy: no process is listed on it, but %s are in use (idle: at most %s)", e.UUID, mebibytes(e.Used), mebibytes(e.Limit))
	}
	pids := make([]string, len(e.PIDs))
	for i, pid := range e.PIDs {
		pids[i] = strconv.Itoa(pid)
	}
	return fmt.Sprintf("device %s is busy: pid %s on it, %s in use", e.UUID, strings.Join(pids, ", "), mebibytes(e.Used))
}

// mebibytes formats n in the unit of nvidia-smi, so that the two outputs can be compared.
func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
