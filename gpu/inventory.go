package gpu

import "context"

// Inventory is what the host needs from a machine's GPUs. All methods may be called from any goroutine. Those with a ctx answer within
// a few seconds even if the driver hangs (*HungError), with the ctx's cause when it ends first, and with ErrClosed after Close.
type Inventory interface {
	// Devices lists the Devices found when the Inventory was opened, in the order of their index: always the same ones, in a slice of the
	// caller's own. *MissingError comes together with the Devices that could be read; any other error comes alone.
	Devices(ctx context.Context) ([]Device, error)
	// Memory asks the driver, so it may block. *UnknownDeviceError: not one of Devices; *LostError, *HungError: this Device is sick.
	Memory(ctx context.Context, uuid DeviceUUID) (Memory, error)
	// Processes asks the driver, so it may block; errors as for Memory. Sorted by pid, each pid once. An empty list is no proof that the
	// Device is clear: in some containers the driver lists nobody, so Pool.Clear looks at the memory too.
	Processes(ctx context.Context, uuid DeviceUUID) ([]Process, error)
	// Close lets go of the driver once the calls under way are over, or says that they hang. It may be called twice.
	Close() error
}

// Simulator is implemented by simulated inventories only: there no driver sees who opens a context, so the host says it.
type Simulator interface {
	// Occupy lists pid on the Device, holding some memory, for as long as /proc shows that very process: the same start time, and not a
	// zombie. It does not block, may be called again for the same pid, and fails for a pid that is not alive.
	Occupy(uuid DeviceUUID, pid int) error
}
