package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spacehost/gpu"
)

// ErrUnreachable is the error of a Machine that does not answer now. Nothing is known about its Devices and processes
// until it joins again.
var ErrUnreachable = errors.New("the machine cannot be reached")

// UnreachableError is ErrUnreachable of a machine that has joined, a node.
type UnreachableError struct{ Machine string }

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("node %s cannot be reached", e.Machine)
}

// Is makes it an ErrUnreachable.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Machine is what the broker needs from one machine: its Devices and the processes on it. Local implements it for the host's
// own machine. Every method may be called from any goroutine. Methods with a ctx may block for a round trip of a network, and
// longer where their comment says so; they return the ctx's cause if it ends first.
type Machine interface {
	// Name is empty for the host's own machine. It never changes and does not block.
	Name() string
	// Slots lists the Slots by index, as they were when the machine joined. The Slots of one Device are adjacent. It does
	// not block. A machine whose Devices have changed joins again with another Machine.
	Slots() []gpu.Slot
	// Clear reports whether a Lease can start on the Device next to the workers beside. self is its own worker, if it is warm;
	// the zero Worker is none. Errors: those of gpu.Pool.Clear, ErrUnreachable.
	Clear(ctx context.Context, device gpu.DeviceUUID, self Worker, beside []Worker) error
	// Status reads every Device, and may block as gpu.Inventory does. The rows of a machine that cannot be reached have no readings,
	// and ErrUnreachable as their Cause.
	Status(ctx context.Context) []gpu.DeviceStatus
	// Watch calls report for each error of a Device, as gpu.Watcher does. nil or *gpu.NotSupportedError: no Device here
	// reports errors. After any other error it may be called again.
	Watch(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error

	// Claim returns the running process of that start of a Space, other than its runner, which calls itself pid. Errors:
	// *NotOwnedError, ErrUnreachable.
	Claim(ctx context.Context, instance string, pid int) (Worker, error)
	// Confine is called once a process is a worker, before it continues. From then on, End must find every process that it
	// starts. It does not block.
	Confine(instance string, w Worker)
	// Occupy lists the worker on a simulated Device. A real driver sees it by itself, so nothing happens there. It does not
	// block.
	Occupy(device gpu.DeviceUUID, w Worker) error
	// Freeze stops a worker and its descendants until Resume or End, and reports whether it can. If it cannot, nothing has
	// changed.
	Freeze(ctx context.Context, w Worker) bool
	// Resume begins to let an idle worker continue with another Lease, frozen or not: it arms the Guard, thaws the worker, and checks
	// the Device as Clear does. It does not block. The caller must call wait, once, which blocks until that is done. After an error of
	// wait the worker may be frozen, and the caller ends it. Disarm follows only after wait.
	Resume(ctx context.Context, r Resumption) (wait func() error)
	// Wait blocks until the worker has exited or ctx ends. Nothing is known about a worker of a machine that cannot be
	// reached: Wait does not return for it, unless the machine has left.
	Wait(ctx context.Context, w Worker)
	// End ends a worker and its descendants, frozen or not, and nothing else. It sends SIGTERM first if grace is above 0. It
	// blocks until all of them are gone, or returns an error. It may be called twice.
	End(ctx context.Context, w Worker, grace time.Duration) error

	// Runs reports whether a worker still runs. Only recovery on the host's own machine needs it. It does not block.
	Runs(w Worker) bool
	// Guard receives the active Leases of the machine. Without an agent there, its methods do nothing.
	Guard
	// BeginArm is Arm with an answer. It does not block. The caller must call wait, once, which returns when the machine knows the
	// deadline. Errors of wait: ErrUnreachable, the cause of ctx. Disarm follows only after wait.
	BeginArm(ctx context.Context, lease string, w Worker, left time.Duration) (wait func() error)

	// LendsNodes reports whether a Space there sees device nodes only with a Lease. It does not block.
	LendsNodes() bool
	// Show lets the processes of a Space open the device nodes of exactly these Devices from now on. It is called only where nodes
	// are lent.
	Show(ctx context.Context, space string, devices []gpu.DeviceUUID) error
	// Holders returns the processes of Spaces that have a Device open, by their pids on the machine.
	Holders(ctx context.Context) map[gpu.DeviceUUID][]int
	// Outsiders returns the uses of Devices by processes that belong to none of the Device's workers.
	Outsiders(ctx context.Context, uses []ProcessUse, workers map[gpu.DeviceUUID][]Worker) []Outsider
	// Describe returns the user and the command of a process. It is empty if they are not known.
	Describe(ctx context.Context, pid int) ProcessInfo
}

// Resumption is the next Lease of an idle worker.
type Resumption struct {
	Lease  string
	Worker Worker
	Device gpu.DeviceUUID
	Beside []Worker      // as of Clear
	Left   time.Duration // as of Guard.Arm
}

// ProcessUse is a process that uses a Device, by the driver's list or because it has a device node open.
type ProcessUse struct {
	Device    gpu.DeviceUUID
	PID       int    // in the driver's pid namespace, or on the machine if HasNode
	Memory    uint64 // bytes; 0: the driver does not report it
	HasNode   bool   // it has a device node open, and belongs to a Space
	Simulated bool   // the Device is simulated
}

// Outsider is the use of a Device by a process that belongs to no worker.
type Outsider struct {
	ProcessUse
	Space  string // the Space of the process; "" for a foreign process
	Start  uint64 // with PID it identifies the process
	IsOurs bool   // PID is one of the machine's pid namespace
}

// Processes gives Local access to the processes of the Spaces; package proctree implements it. Every method may
// be called from any goroutine.
type Processes interface {
	// FromInside returns the running process of that start of a Space, other than its runner, which calls itself pid. host is
	// its pid for all other methods. It may block for a few milliseconds.
	FromInside(instance string, pid int) (host int, start uint64, ok bool)
	// Confine is called once a process is a worker, before it continues. From then on, End must find every process
	// that it starts. It does not block.
	Confine(instance string, pid int, start uint64)
	// Freeze stops a worker and its descendants until Thaw or End, and reports whether it can. If it cannot, nothing has
	// changed. It may block for some milliseconds.
	Freeze(pid int, start uint64) bool
	// Thaw lets a frozen worker continue; it does nothing for another one. After an error the worker does not continue,
	// and the caller ends it. It may block for some milliseconds.
	Thaw(pid int, start uint64) error
	// Wait blocks until that process has exited or ctx ends.
	Wait(ctx context.Context, pid int, start uint64)
	// End ends a worker and its descendants, frozen or not, and nothing else. It sends SIGTERM first if grace is above 0. It
	// blocks and reports whether all of them are gone. It may be called twice.
	End(pid int, start uint64, grace time.Duration) bool
	// SpaceOf returns the Space of a process and the process's start time. The Space's runner counts. It returns
	// "" for a process of no Space. It does not block.
	SpaceOf(pid int) (space string, start uint64)
	// Within reports whether pid is that worker or a descendant of it. It does not block.
	Within(pid, worker int, start uint64) bool
}

// Nodes controls which Devices the processes of Spaces can open; package internal/host implements it. The methods may be
// called from any goroutine.
type Nodes interface {
	// Show lets the processes of a Space open exactly these Devices from now on. A process that has a Device open keeps it.
	// There is one call at a time for a Space. It may block for some milliseconds, and does nothing for a Space without a
	// process.
	Show(ctx context.Context, space string, devices []gpu.DeviceUUID) error
	// Holders returns the processes of Spaces that have a Device open, by their pids on this host. It may block for some
	// milliseconds. A process that cannot be read is left out.
	Holders() map[gpu.DeviceUUID][]int
}
