package nvml

import (
	"context"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"spacehost/gpu"
)

// instance is the position of a MIG device on its GPU. Several compute instances of one GPU instance share its
// memory.
type instance struct {
	parent nvml.Device
	gpu    gpu.DeviceUUID // the parent's
	gi, ci uint32         // ids of the GPU instance and of the compute instance in it
}

// anyInstance means no particular instance: nvml.h, nvmlProcessInfo_t and nvmlEventData_t.
const anyInstance = ^uint32(0)

// covers reports whether the driver's gi and ci refer to this instance, or may refer to it.
func (i *instance) covers(gi, ci uint32) bool {
	return (gi == anyInstance || gi == i.gi) && (ci == anyInstance || ci == i.ci)
}

// parent is a GPU in MIG mode. Its instances are leased; the GPU itself is not.
type parent struct {
	handle nvml.Device
	uuid   gpu.DeviceUUID
	index  int
	max    int // maximum number of instances
}

// openParent does not read the memory: reading the whole GPU's memory needs root permission.
func openParent(handle nvml.Device, index int) (*parent, error) {
	id, ret := handle.GetUUID()
	if err := check("", "read UUID", ret); err != nil {
		return nil, err
	}
	maxInstances, ret := handle.GetMaxMigDeviceCount()
	return &parent{handle: handle, uuid: gpu.DeviceUUID(id), index: index, max: maxInstances}, check(gpu.DeviceUUID(id), "count MIG instances", ret)
}

// migMode reports whether the GPU is in MIG mode. Drivers before R450 lack the symbol, and calling it would end the
// program.
func (i *Inventory) migMode(handle nvml.Device) (bool, error) {
	if i.lib.Extensions().LookupSymbol("nvmlDeviceGetMigMode") != nil {
		return false, nil
	}
	mode, _, ret := handle.GetMigMode()
	if ret == nvml.ERROR_NOT_SUPPORTED || ret == nvml.ERROR_FUNCTION_NOT_FOUND {
		return false, nil
	}
	return mode == nvml.DEVICE_MIG_ENABLE, check("", "read MIG mode", ret)
}

// addInstances reads each instance behind its own guard. An instance that cannot be read is added to missing under
// the index of its GPU.
func (i *Inventory) addInstances(p *parent) {
	found := false
	for n := range p.max {
		opening := newGuard(p.uuid, openLimit)
		i.guards = append(i.guards, opening)
		d, err := do(context.Background(), opening, func() (*device, error) { return i.readInstance(p, n) })
		switch {
		case err != nil:
			i.miss(p.index, err)
			found = true
		case d != nil:
			i.devices, i.guards = append(i.devices, d), append(i.guards, d.guard)
			found = true
		}
	}
	if !found {
		i.miss(p.index, &gpu.NoInstanceError{UUID: p.uuid, Index: p.index})
	}
}

// readInstance returns nil where position n is empty: removed instances leave gaps.
func (i *Inventory) readInstance(p *parent, n int) (*device, error) {
	handle, ret := p.handle.GetMigDeviceHandleByIndex(n)
	if ret == nvml.ERROR_NOT_FOUND || ret == nvml.ERROR_INVALID_ARGUMENT { // as go-nvlib, pkg/nvlib/device/device.go, VisitMigDevices
		return nil, nil
	}
	if err := check(p.uuid, "open MIG instance", ret); err != nil {
		return nil, err
	}
	gi, ret := handle.GetGpuInstanceId()
	if err := check(p.uuid, "read GPU instance", ret); err != nil {
		return nil, err
	}
	ci, ret := handle.GetComputeInstanceId()
	if err := check(p.uuid, "read compute instance", ret); err != nil {
		return nil, err
	}
	d, err := i.describe(handle, p.index)
	if err == nil {
		d.instance = &instance{parent: p.handle, gpu: p.uuid, gi: uint32(gi), ci: uint32(ci)}
	}
	return d, err
}

// processes lists the processes of the instance. Where the driver lists only by GPU (vGPU hosts) it uses the GPU's
// list. That may need a permission that the host lacks; then, as in a container, only the memory shows use.
func (d *device) processes() ([]nvml.ProcessInfo, nvml.Return) {
	infos, ret := d.handle.GetComputeRunningProcesses()
	if d.instance == nil {
		return infos, ret
	}
	if ret == nvml.ERROR_NOT_SUPPORTED {
		if infos, ret = d.instance.parent.GetComputeRunningProcesses(); ret == nvml.ERROR_NO_PERMISSION {
			return nil, nvml.SUCCESS
		}
	}
	return slices.DeleteFunc(infos, func(p nvml.ProcessInfo) bool { return !d.instance.covers(p.GpuInstanceId, p.ComputeInstanceId) }), ret
}

// reporter returns the handle and the UUID of the GPU on which errors are reported: NVML reports none by instance
// handle.
func (d *device) reporter() (nvml.Device, gpu.DeviceUUID) {
	if d.instance != nil {
		return d.instance.parent, d.instance.gpu
	}
	return d.handle, d.UUID
}

// affected lists the Devices concerned by the event: all instances of a GPU, unless the event names one.
func (i *Inventory) affected(event deviceEvent) (uuids []gpu.DeviceUUID) {
	for _, d := range i.devices {
		if _, uuid := d.reporter(); uuid == event.uuid && (d.instance == nil || d.instance.covers(event.gi, event.ci)) {
			uuids = append(uuids, d.UUID)
		}
	}
	return uuids
}

// architecture returns the multiprocessors assigned to the instance. NVML does not count the cores of an instance,
// but its multiprocessors.
func (d *device) architecture() (a gpu.Architecture, err error) {
	var ret nvml.Return
	a.Major, a.Minor, ret = d.instance.parent.GetCudaComputeCapability()
	if err := check(d.UUID, "read compute capability", ret); err != nil {
		return a, err
	}
	if attributes, ret := d.handle.GetAttributes(); ret == nvml.SUCCESS {
		a.Multiprocessors = int(attributes.MultiprocessorCount)
	}
	return a, nil
}
