package gpu

import (
	"context"
	"fmt"
	"slices"
)

// Xid is the number under which the driver reports an error on a Device.
type Xid int

// applicationXids are the work of what ran there: the next process finds the Device healthy (NVIDIA/k8s-device-plugin,
// internal/rm/health.go, getDisabledHealthCheckXids: "Application errors: the GPU should still be healthy").
var applicationXids = []Xid{
	13,  // graphics engine exception
	31,  // memory page fault
	43,  // stopped processing
	45,  // preemptive cleanup, after earlier errors
	68,  // video processor exception
	109, // context switch timeout
}

// Condemns reports whether a Device with this error must not be lent on.
func (x Xid) Condemns() bool { return !slices.Contains(applicationXids, x) }

func (x Xid) String() string { return fmt.Sprintf("Xid %d", int(x)) }

// Watcher is implemented by inventories whose driver reports errors as they happen.
type Watcher interface {
	// Watch tells of each error on a Device from here on. It blocks until ctx ends, then returns its cause, and calls tell
	// from one goroutine. *NotSupportedError: no Device here reports any; any other error: the driver has stopped to, and
	// it may be called again. One Watch at a time.
	Watch(ctx context.Context, tell func(DeviceUUID, Xid)) error
}
