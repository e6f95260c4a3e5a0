package nvml

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

var _ gpu.Watcher = (*Inventory)(nil)

// eventWait is the duration of one wait for an event: Close waits for that call.
const eventWait = 250 * time.Millisecond

// lostRecheck is the interval at which lost GPUs are checked again: a reset may have recovered one.
const lostRecheck = 30 * time.Second

// deviceEvent is an error reported by the driver. The zero value means no event.
type deviceEvent struct {
	uuid   gpu.DeviceUUID // of the whole GPU; "" if unknown
	xid    gpu.Xid
	gi, ci uint32 // the MIG instance concerned, or anyInstance
}

// Watch implements gpu.Watcher. A Device that hangs, is lost or cannot report is left out; the others are still
// watched.
func (i *Inventory) Watch(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error {
	if len(i.lost) > 0 { // in an earlier Watch
		i.checkLost(ctx, report)
	}
	for {
		if err := i.watchSet(ctx, report); err != nil {
			return err
		}
	}
}

// watchSet watches all GPUs that are not lost with one event set. It returns nil when the set of lost GPUs has
// changed, which needs a new event set.
func (i *Inventory) watchSet(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) error {
	set, err := do(ctx, i.events, func() (nvml.EventSet, error) {
		set, ret := i.lib.EventSetCreate()
		return set, check("", "create an event set", ret)
	})
	if err != nil {
		return err
	}
	defer func() {
		_, _ = do(context.Background(), i.events, func() (nvml.Return, error) { return set.Free(), nil }) // a set that hangs is not freed
	}()
	reporting, err := i.register(ctx, set)
	if err != nil {
		return err
	}
	for checked := time.Now(); ; {
		event, err := do(ctx, i.events, func() (deviceEvent, error) { return nextEvent(set, reporting) })
		if _, lost := errors.AsType[*gpu.LostError](err); lost {
			return i.excludeLost(ctx, reporting, report, err)
		} else if err != nil {
			return err
		}
		i.dispatch(event, reporting, report)
		if len(i.lost) > 0 && time.Since(checked) >= lostRecheck {
			if i.checkLost(ctx, report) {
				return nil
			}
			checked = time.Now()
		}
	}
}

// reporters are the handles in an event set, by the UUID of the whole GPU.
type reporters map[gpu.DeviceUUID]nvml.Device

// register fails only if no Device can report.
func (i *Inventory) register(ctx context.Context, set nvml.EventSet) (reporters, error) {
	var failed []error
	reporting := make(reporters)
	seen := make(map[gpu.DeviceUUID]bool) // registered once for all instances of a GPU
	for _, d := range i.devices {
		reporter, uuid := d.reporter()
		if seen[uuid] {
			continue
		}
		seen[uuid] = true
		if i.lost[uuid] {
			failed = append(failed, &gpu.LostError{UUID: uuid})
			continue
		}
		_, err := do(ctx, d.guard, func() (struct{}, error) {
			return struct{}{}, check(uuid, "watch for errors", reporter.RegisterEvents(nvml.EventTypeXidCriticalError, set))
		})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		reporting[uuid] = reporter
	}
	if len(failed) == len(seen) {
		return reporting, errors.Join(failed...)
	}
	return reporting, nil
}

// nextEvent waits for an event. A lost GPU no longer returns its UUID, so its handle identifies it.
func nextEvent(set nvml.EventSet, reporting reporters) (deviceEvent, error) {
	event, ret := set.Wait(uint32(eventWait.Milliseconds()))
	if ret == nvml.ERROR_TIMEOUT {
		return deviceEvent{}, nil
	}
	if err := check("", "wait for errors", ret); err != nil {
		return deviceEvent{}, err
	}
	if event.EventType != nvml.EventTypeXidCriticalError {
		return deviceEvent{}, nil
	}
	return deviceEvent{reporting.uuidOf(event.Device), gpu.Xid(event.EventData), event.GpuInstanceId, event.ComputeInstanceId}, nil
}

// uuidOf returns "" for an unknown handle that does not return its UUID.
func (r reporters) uuidOf(handle nvml.Device) gpu.DeviceUUID {
	if handle == nil {
		return ""
	}
	if reflect.ValueOf(handle).Comparable() { // handles of go-nvml and the simulation are; others would panic
		for uuid, reporter := range r {
			if reporter == handle {
				return uuid
			}
		}
	}
	uuid, ret := handle.GetUUID()
	if ret != nvml.SUCCESS {
		return ""
	}
	return gpu.DeviceUUID(uuid)
}

// dispatch reports an event. An event of unknown origin is reported for every GPU that reports errors: an operator
// can return a Device to service, but a Device with a hardware error must not be leased (as in
// NVIDIA/k8s-device-plugin, internal/rm/health.go, runEventMonitor).
func (i *Inventory) dispatch(event deviceEvent, reporting reporters, report func(gpu.DeviceUUID, gpu.Xid)) {
	switch {
	case event.xid == 0:
		return
	case event.uuid == "":
		for event.uuid = range reporting {
			i.dispatch(event, nil, report)
		}
		return
	case event.xid == offTheBus:
		i.markLost(event.uuid)
	}
	for _, uuid := range i.affected(event) {
		report(uuid, event.xid)
	}
}

// excludeLost finds the lost GPU when the event set reports one. From then on the event set returns that error at
// once and no event of the others, so the others need a new set without the lost GPU. If no GPU reports itself lost,
// the error is returned: after a pause all are watched again.
func (i *Inventory) excludeLost(ctx context.Context, reporting reporters, report func(gpu.DeviceUUID, gpu.Xid), err error) error {
	i.checkLost(ctx, report)
	for uuid := range reporting {
		if i.lost[uuid] {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checkLost checks every Device concurrently, since one may hang; a Device that does not answer keeps its state. A
// GPU that is newly lost is reported once, with the driver's Xid for it. checkLost returns whether the set of lost
// GPUs has changed.
func (i *Inventory) checkLost(ctx context.Context, report func(gpu.DeviceUUID, gpu.Xid)) bool {
	errs := make([]error, len(i.devices))
	var all sync.WaitGroup
	for n, d := range i.devices {
		all.Go(func() { _, errs[n] = i.Memory(ctx, d.UUID) })
	}
	all.Wait()
	before := i.lost
	i.lost = nil
	for n, d := range i.devices {
		_, uuid := d.reporter()
		if _, lost := errors.AsType[*gpu.LostError](errs[n]); lost || errs[n] != nil && before[uuid] {
			i.markLost(uuid)
		}
	}
	for uuid := range i.lost {
		if !before[uuid] {
			i.dispatch(deviceEvent{uuid, offTheBus, anyInstance, anyInstance}, nil, report)
		}
	}
	return !maps.Equal(before, i.lost)
}

func (i *Inventory) markLost(uuid gpu.DeviceUUID) {
	if i.lost == nil {
		i.lost = make(map[gpu.DeviceUUID]bool)
	}
	i.lost[uuid] = true
}

// simulatedEvents is the event set of a simulated library.
type simulatedEvents chan nvml.EventData

var _ nvml.EventSet = simulatedEvents(nil)

// Free implements nvml.EventSet.
func (e simulatedEvents) Free() nvml.Return { return nvml.SUCCESS }

// Wait implements nvml.EventSet.
func (e simulatedEvents) Wait(milliseconds uint32) (nvml.EventData, nvml.Return) {
	timeout := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer timeout.Stop()
	select {
	case event := <-e:
		return event, nvml.SUCCESS
	case <-timeout.C:
		return nvml.EventData{}, nvml.ERROR_TIMEOUT
	}
}

// emit reports an error of the GPU or of one instance. Without a reader, some events are kept and others dropped, as
// a driver does.
func (e simulatedEvents) emit(device nvml.Device, xid int, gi, ci uint32) {
	select {
	case e <- nvml.EventData{Device: device, EventType: nvml.EventTypeXidCriticalError, EventData: uint64(xid), GpuInstanceId: gi, ComputeInstanceId: ci}:
	default:
	}
}
