package nvml

import (
	"context"
	"errors"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

var _ gpu.Watcher = (*Inventory)(nil)

// eventWait is how long one call waits for an event: Close waits for the call.
const eventWait = 250 * time.Millisecond

// happened is an event, or none.
type happened struct {
	uuid   gpu.DeviceUUID // of the whole GPU
	xid    gpu.Xid
	gi, ci uint32 // the MIG instance that it is about, or anyInstance
}

// Watch is part of gpu.Watcher. A Device that hangs or cannot report is left out; the others are not touched by it.
func (i *Inventory) Watch(ctx context.Context, tell func(gpu.DeviceUUID, gpu.Xid)) error {
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
	if err := i.register(ctx, set); err != nil {
		return err
	}
	for {
		event, err := ask(ctx, i.events, func() (happened, error) { return next(set) })
		if err != nil {
			return err
		}
		if event.xid == 0 {
			continue
		}
		for _, uuid := range i.hit(event) {
			tell(uuid, event.xid)
		}
	}
}

// register fails only if not one Device can report.
func (i *Inventory) register(ctx context.Context, set nvml.EventSet) error {
	var failed []error
	asked := make(map[gpu.DeviceUUID]bool) // once for all instances of a GPU
	for _, d := range i.devices {
		reporter, uuid := d.reporter()
		if asked[uuid] {
			continue
		}
		asked[uuid] = true
		_, err := ask(ctx, d.guard, func() (struct{}, error) {
			return struct{}{}, check(uuid, "watch for errors", reporter.RegisterEvents(nvml.EventTypeXidCriticalError, set))
		})
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == len(asked) && len(failed) > 0 {
		return errors.Join(failed...)
	}
	return nil
}

func next(set nvml.EventSet) (happened, error) {
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
	uuid, ret := event.Device.GetUUID()
	return happened{gpu.DeviceUUID(uuid), gpu.Xid(event.EventData), event.GpuInstanceId, event.ComputeInstanceId}, check("", "read UUID", ret)
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
