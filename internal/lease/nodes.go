package lease

import (
	"context"
	"slices"
	"sync"

	"spacehost/gpu"
)

// shownNodes orders the calls of Machine.Show of one machine.
type shownNodes struct {
	spaces sync.Map // *sync.Mutex by Space
	failed sync.Map // Spaces whose last Show failed
}

func (n *shownNodes) lock(space string) (unlock func()) {
	entry, _ := n.spaces.LoadOrStore(space, &sync.Mutex{})
	mu := entry.(*sync.Mutex)
	mu.Lock()
	return mu.Unlock
}

// showNodes shows a Space the Devices of its Leases as they are now. Call it whenever a Lease gets a worker, before that
// worker continues, and when a Lease has ended: the last call has the last word.
func (m *machineEffects) showNodes(ctx context.Context, machine Machine, space string) error {
	if !machine.LendsNodes() {
		return nil // before the scheduler is asked
	}
	defer m.shown.lock(space)()
	var devices []gpu.DeviceUUID
	if !m.do(func(sc *scheduler) { devices = sc.spaceDevices(space) }) {
		return nil // the host stops, and with it the Space
	}
	err := machine.Show(ctx, space, devices)
	if err != nil {
		m.shown.failed.Store(space, nil)
	} else {
		m.shown.failed.Delete(space)
	}
	return err
}

// retryNodes repeats what has failed, so that no Device stays visible without a Lease.
func (m *machineEffects) retryNodes(ctx context.Context, machine Machine) {
	m.shown.failed.Range(func(space, _ any) bool {
		_ = m.showNodes(ctx, machine, space.(string)) // the first failure was logged; this is repeated
		return true
	})
}

// spaceDevices are the Devices of the Space's Leases that have a worker.
func (sc *scheduler) spaceDevices(space string) (all []gpu.DeviceUUID) {
	for _, s := range sc.slots {
		uuid := s.Device.UUID
		if s.phase == held && s.holder.Space == space && s.holder.Worker.PID != 0 && !slices.Contains(all, uuid) {
			all = append(all, uuid)
		}
	}
	return all
}
