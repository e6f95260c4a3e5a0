// Package gpu describes the GPUs of a machine: their identity, health, memory and processes.
//
// # Terms
//
//   - Device: a whole GPU or a MIG instance. Its key is the UUID; the index is for display.
//   - Slot: the share of a Device that one Lease of size large occupies. Share is the number of Slots per Device.
//   - Clear: no process except those of its neighbours uses the Device, and its memory has been freed.
//   - Neighbours: the Leases on the other Slots of the same Device.
//   - Fault: a failure that is injected into a simulated Device.
//   - Xid: the number of an error that the driver reports on a Device.
//
// # Types
//
// Inventory reads the Devices. Its implementations are nvml.Inventory (real or simulated), gputest.FakeInventory and
// None. Optional interfaces extend it: Watcher reports driver errors, NodeLister names device nodes, SensorReader measures temperature
// and power, and Simulator and Faulter control a simulation.
//
// Pool divides the Devices into Slots. Package lease calls Pool.Clear before each Lease. `spacehost doctor` calls Pool.Status.
// On a running host, a Sampler calls it: package lease samples each 2 s, and the metrics and the console's pages read the last sample.
//
// # Failures
//
// A hanging driver never blocks a caller for longer than a few seconds (*HungError). A Device that is lost (*LostError)
// or that could not be listed (*MissingError) does not affect the other Devices. An error that an operator can fix has
// its own type, and its text names the next step. Other errors of the driver are a *DriverError.
package gpu
