package host

import (
	"errors"
	"slices"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// phases returns the Slots of the host by number, with their phases.
func (r *reloadHost) phases() (all []string) {
	for _, s := range r.broker.Slots() {
		all = append(all, string(s.Device)[:4]+s.Phase)
	}
	return all
}

// TestRescan replaces a simulated GPU by MIG instances, and back. The drain of the GPU survives.
func TestRescan(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	first := r.pool.Load().Devices()[0]
	if err := r.broker.Drain(t.Context(), first.UUID, lease.Drain{Reason: "new fan"}); err != nil {
		t.Fatal(err)
	}
	same, err := r.RescanGPUs(t.Context(), "")
	if err != nil || len(same.Joined) != 0 || len(same.Left) != 0 || same.Stayed != 1 {
		t.Errorf("rescan without a change: %+v, %v", same, err)
	}
	cut, err := r.RescanGPUs(t.Context(), "2xH200-MIG-3g.71gb")
	if err != nil || len(cut.Joined) != 2 || !slices.Equal(cut.Left, []gpu.Device{first}) || cut.Stayed != 0 {
		t.Fatalf("rescan after MIG instances were created: %+v, %v", cut, err)
	}
	r.await("the MIG instances alone", func() bool { return slices.Equal(r.phases(), []string{"MIG-free", "MIG-free"}) })
	if numbers := r.broker.Slots(); numbers[0].Slot != 1 || numbers[1].Slot != 2 {
		t.Errorf("slots %+v, want the numbers 1 and 2: slot 0 was the GPU's", numbers)
	}
	if uuid, err := r.pool.Load().Find("1"); err != nil || uuid != cut.Joined[0].UUID {
		t.Errorf("slot 1 is %s (%v), want %s", uuid, err, cut.Joined[0].UUID)
	}
	if rows := r.broker.Sampler().Sample(t.Context()); len(rows) != 2 || rows[0].Error != "" {
		t.Errorf("devices %+v, want both instances, readable", rows)
	}
	var refused *control.RescanRefusedError
	if _, err := r.RescanGPUs(t.Context(), "2xNothing"); !errors.As(err, &refused) {
		t.Errorf("rescan with an unknown model: %v", err)
	}
	if got := r.phases(); len(got) != 2 {
		t.Errorf("slots %q after a refused rescan", got)
	}
	if back, err := r.RescanGPUs(t.Context(), "1xH200"); err != nil || len(back.Joined) != 1 || len(back.Left) != 2 {
		t.Errorf("rescan after the instances were deleted: %+v, %v", back, err)
	}
	r.await("the drained GPU", func() bool { return slices.Equal(r.phases(), []string{"GPU-drained"}) })
}

// TestRescanWithoutGPUs is refused, and nothing is closed.
func TestRescanWithoutGPUs(t *testing.T) {
	r := startReloadHost(t, "gpus: none\nconsole: 127.0.0.1:0\nisolation: none\nspaces:\n"+spaceOne)
	var refused *control.RescanRefusedError
	if _, err := r.RescanGPUs(t.Context(), ""); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}
