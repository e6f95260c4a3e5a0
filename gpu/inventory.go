package gpu

import "context"

// Inventory is what the host needs from a machine's GPUs. All methods may be called from any goroutine. Methods with
// a ctx return within a few seconds even if the driver hangs (*HungError). They return the ctx's cause if it ends
// first, and ErrClosed after Close.
type Inventory interface {
	// Devices lists the Devices found when the Inventory was opened, ordered by index. The list never changes; the
	// slice belongs to the caller. *MissingError is returned together with the Devices that could be read; any other
	// error comes without Devices.
	Devices(ctx context.Context) ([]Device, error)
	// Memory queries the driver, so it may block. *UnknownDeviceError: uuid is not one of Devices; *LostError,
	// *HungError: this Device is faulty.
	Memory(ctx context.Context, uuid DeviceUUID) (Memory, error)
	// Usage is the processes of the Device, and then its memory: a process that exits between the two is still
	// counted, never missed. It blocks and fails like Memory. The list is sorted by pid, without duplicates. An empty
	// list does not prove that the Device is clear: in some containers the driver lists no processes. Pool.Clear
	// therefore checks the memory too.
	Usage(ctx context.Context, uuid DeviceUUID) ([]Process, Memory, error)
	// Close releases the driver after the running calls have returned, or returns *HungError if they hang. It may be
	// called twice.
	Close() error
}

// NodeLister is implemented by inventories whose Devices have device nodes.
type NodeLister interface {
	// Nodes returns the paths of the nodes that belong to this Device alone, or to it and others of the same GPU. The nodes
	// that every program with CUDA needs, such as /dev/nvidiactl, are not among them. Errors as for Memory, and those of
	// reading the driver's list of MIG instances.
	Nodes(ctx context.Context, uuid DeviceUUID) ([]string, error)
}

// Simulator is implemented by simulated inventories only. No driver observes which process opens a context there, so
// the host reports it.
type Simulator interface {
	// Occupy lists pid on the Device, with some memory in use, as long as /proc shows the same process: the same
	// start time, and not a zombie. It does not block, may be called again for the same pid, and fails for a pid that
	// is not running.
	Occupy(uuid DeviceUUID, pid int) error
}
