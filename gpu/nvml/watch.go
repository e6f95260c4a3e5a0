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

// eventWait is how long one call waits for an event: Close waits for the call.
const eventWait = 250 * time.Millisecond

// lostAgain is how often those are asked that were lost: a reset may bring one back.
const lostAgain = 30 * time.Second

// happened is an event, or none.
type happened struct {
	uuid   gpu.DeviceUUID // of the whole GPU; "" if nobody can tell
	xid    gpu.Xid
	gi, ci uint32 // the MIG instance that it is about, or anyInstance
}

// Watch is part of gpu.Watcher. A Device that hangs, is lost or cannot report is left out; the others are not touched by it.
func (i *Inventory) Watch(ctx context.Context, tell func(gpu.DeviceUUID, gpu.Xid)) error {
	if len(i.lost) > 0 { // in an earlier Watch
		i.look(ctx, tell)
	}
	for {
		if err := i.hear(ctx, tell); err != nil {
			return err
		}
	}
}

// hear watches with one event set all GPUs that are not lost. It returns nil when others are: then a new set is due.
func (i *Inventory) hear(ctx context.Context, tell func(gpu.DeviceUUID, gpu.Xid)) error {
	set, err := ask(ctx, i.events, func() (nvml.EventSet, error) {
		set, ret := i.lib.EventSetCreate()
		return set, check("", "make an event set", ret)
	})
	if err != nil {
		return err
	}
	defer func() {
		_, _ = ask(context.Background(), i.events, func() (nvml.Return, error) { return set.Free(), nil }) // a set that hangs stays
	}()
	reporting, err := i.register(ctx, set)
	if err != nil {
		return err
	}
	for looked := time.Now(); ; {
		event, err := ask(ctx, i.events, func() (happened, error) { return next(set, reporting) })
		if _, lost := errors.AsType[*gpu.LostError](err); lost {
			return i.leaveOut(ctx, reporting, tell, err)
		} else if err != nil {
			return err
		}
		i.pass(event, reporting, tell)
		if len(i.lost) > 0 && time.Since(looked) >= lostAgain {
			if i.look(ctx, tell) {
				return nil
			}
			looked = time.Now()
		}
	}
}

// reporters are the handles that are in an event set, by the UUID of the whole GPU.
type reporters map[gpu.DeviceUUID]nvml.Device

// register fails only if not one Device can report.
func (i *Inventory) register(ctx context.Context, set nvml.EventSet) (reporters, error) {
	var failed []error
	reporting := make(reporters)
	asked := make(map[gpu.DeviceUUID]bool) // once for all instances of a GPU
	for _, d := range i.devices {
		reporter, uuid := d.reporter()
		if asked[uuid] {
			continue
		}
		asked[uuid] = true
		if i.lost[uuid] {
			failed = append(failed, &gpu.LostError{UUID: uuid})
			continue
		}
		_, err := ask(ctx, d.guard, func() (struct{}, error) {
			return struct{}{}, check(uuid, "watch for errors", reporter.RegisterEvents(nvml.EventTypeXidCriticalError, set))
		})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		reporting[uuid] = reporter
	}
	if len(failed) == len(asked) {
		return reporting, errors.Join(failed...)
	}
	return reporting, nil
}

// next waits for an event. A GPU that is lost does not answer to its UUID any more, so its handle tells who it is.
func next(set nvml.EventSet, reporting reporters) (happened, error) {
	event, ret := set.Wait(uint32(eventWait.Milliseconds()))
	if ret == nvml.ERROR_TIMEOUT {
		return happened{}, nil
	}
	if err := check("", "wait for errors", ret); err != nil {
		return happened{}, err
	}
	if event.EventType != nvml.EventTypeXidCriticalError {
		return happened{}, nil
	}
	return happened{reporting.of(event.Device), gpu.Xid(event.EventData), event.GpuInstanceId, event.ComputeInstanceId}, nil
}

// of returns "" for a handle that is none of ours and does not answer.
func (r reporters) of(handle nvml.Device) gpu.DeviceUUID {
	if handle == nil {
		return ""
	}
	if reflect.ValueOf(handle).Comparable() { // go-nvml's and the simulated ones are; others would panic
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

// pass tells of an event. One of which nobody can say where it was is told of all that report: a Device is better returned by an
// operator than lent with an error of its hardware (as NVIDIA/k8s-device-plugin, internal/rm/health.go, runEventMonitor).
func (i *Inventory) pass(event happened, reporting reporters, tell func(gpu.DeviceUUID, gpu.Xid)) {
	switch {
	case event.xid == 0:
		return
	case event.uuid == "":
		for event.uuid = range reporting {
			i.pass(event, nil, tell)
		}
		return
	case event.xid == offTheBus:
		i.lose(event.uuid)
	}
	for _, uuid := range i.hit(event) {
		tell(uuid, event.xid)
	}
}

// leaveOut finds out who is lost when the event set says that one is. It says so at once from then on, and nothing of the
// others, so these need a set without it. If nobody admits to it the error stays: after a pause all are watched again.
func (i *Inventory) leaveOut(ctx context.Context, reporting reporters, tell func(gpu.DeviceUUID, gpu.Xid), err error) error {
	i.look(ctx, tell)
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

// look asks every Device whether it is lost, all at the same time, since one may hang: who does not answer is what it was. A
// GPU that has become it is told of once, with the Xid that the driver has for this. It reports whether others are lost now.
func (i *Inventory) look(ctx context.Context, tell func(gpu.DeviceUUID, gpu.Xid)) bool {
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
			i.lose(uuid)
		}
	}
	for uuid := range i.lost {
		if !before[uuid] {
			i.pass(happened{uuid, offTheBus, anyInstance, anyInstance}, nil, tell)
		}
	}
	return !maps.Equal(before, i.lost)
}

func (i *Inventory) lose(uuid gpu.DeviceUUID) {
	if i.lost == nil {
		i.lost = make(map[gpu.DeviceUUID]bool)
	}
	i.lost[uuid] = true
}

// simulatedEvents is the set of a simulated library.
type simulatedEvents chan nvml.EventData

var _ nvml.EventSet = simulatedEvents(nil)

// Free implements nvml.EventSet.
func (e simulatedEvents) Free() nvml.Return { return nvml.SUCCESS }

// Wait implements nvml.EventSet.
func (e simulatedEvents) Wait(milliseconds uint32) (nvml.EventData, nvml.Return) {
	late := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
	defer late.Stop()
	select {
	case event := <-e:
		return event, nvml.SUCCESS
	case <-late.C:
		return nvml.EventData{}, nvml.ERROR_TIMEOUT
	}
}

// happen reports an error of the GPU or of one instance; a driver keeps some events for who does not listen, and drops others.
func (e simulatedEvents) happen(device nvml.Device, xid int, gi, ci uint32) {
	select {
	case e <- nvml.EventData{Device: device, EventType: nvml.EventTypeXidCriticalError, EventData: uint64(xid), GpuInstanceId: gi, ComputeInstanceId: ci}:
	default:
	}
}
