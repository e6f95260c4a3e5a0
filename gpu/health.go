package gpu

import (
	"context"
	"fmt"
	"slices"
)

// Xid is the number under which the driver reports an error on a Device.
type Xid int

// applicationXids are errors caused by the application that ran on the Device. The next process finds the Device
// healthy (NVIDIA/k8s-device-plugin, internal/rm/health.go, getDisabledHealthCheckXids: "Application errors: the GPU
// should still be healthy").
var applicationXids = []Xid{
	13,  // graphics engine exception
	31,  // memory page fault
	43,  // stopped processing
	45,  // preemptive cleanup, after earlier errors
	68,  // video processor exception
	109, // context switch timeout
}

// Condemns reports whether a Device with this error must not be leased again.
func (x Xid) Condemns() bool { return !slices.Contains(applicationXids, x) }

func (x Xid) String() string { return fmt.Sprintf("Xid %d", int(x)) }

// Watcher is implemented by inventories whose driver reports errors as they happen.
type Watcher interface {
	// Watch calls report for each error on a Device from now on. It blocks until ctx ends, then returns the ctx's
	// cause. report is called from one goroutine. *NotSupportedError means that no Device here reports errors; any
	// other error means that the driver stopped reporting, and Watch may be called again. Only one Watch may run at a
	// time.
	Watch(ctx context.Context, report func(DeviceUUID, Xid)) error
}
