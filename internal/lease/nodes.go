package lease

import (
	"context"
	"slices"
	"sync"

	"spacehost/gpu"
)

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

// shownNodes orders the calls of Nodes.Show.
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
func (b *Broker) showNodes(ctx context.Context, space string) error {
	if b.config.Nodes == nil {
		return nil
	}
	defer b.shown.lock(space)()
	var devices []gpu.DeviceUUID
	if !b.do(func(sc *scheduler) { devices = sc.spaceDevices(space) }) {
		return nil // the host stops, and with it the Space
	}
	err := b.config.Nodes.Show(ctx, space, devices)
	if err != nil {
		b.shown.failed.Store(space, nil)
	} else {
		b.shown.failed.Delete(space)
	}
	return err
}

// retryNodes repeats what has failed, so that no Device stays visible without a Lease.
func (b *Broker) retryNodes(ctx context.Context) {
	b.shown.failed.Range(func(space, _ any) bool {
		_ = b.showNodes(ctx, space.(string)) // the first failure was logged; this is repeated
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

func (b *Broker) nodeHolders() map[gpu.DeviceUUID][]int {
	if b.config.Nodes == nil {
		return nil
	}
	return b.config.Nodes.Holders()
}
