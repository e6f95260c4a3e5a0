package metrics

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/gpu/gputest"
	"spacehost/internal/egress"
	"spacehost/internal/lease"
	"spacehost/internal/lease/brokertest"
	"spacehost/internal/views"
	"spacehost/migrations"
	"spacehost/quota"
)

// noSpaces is a host without Spaces.
type noSpaces struct{}

func (noSpaces) SpaceViews() []views.Space            { return nil }
func (noSpaces) UsageStats() map[string]Usage         { return nil }
func (noSpaces) EgressStats() map[string]egress.Stats { return nil }

// TestNodeLabel: the series of nodes have a label that those of the host's own machine do not have.
func TestNodeLabel(t *testing.T) {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	broker := brokertest.WithoutGPU(t, lease.Config{DB: db, Ledger: quota.New(db, quota.Config{})})
	var nodes []Node
	m := New()
	m.registry.MustRegister(&machine{Config{Spaces: noSpaces{}, Broker: broker, Nodes: func() []Node { return nodes }, Waiting: func() []string { return nil }, Free: func() (uint64, error) { return 0, nil }}})
	gather := func() map[string]int {
		families, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		series := map[string]int{}
		for _, f := range families {
			for _, one := range f.GetMetric() {
				for _, label := range one.GetLabel() {
					if label.GetName() == "node" {
						series[f.GetName()+" "+label.GetValue()]++
					}
				}
			}
		}
		return series
	}
	if got := gather(); len(got) != 0 {
		t.Errorf("without nodes: %v", got)
	}
	brokertest.Join(t, broker, "gpu2", gputest.NewFakeInventory(gputest.Devices(2)...))
	broker.Sampler().Sample(t.Context())
	nodes = []Node{{"gpu2", "connected", true, 0.001}, {"old", "lost", false, 0}}
	m.NodeConnected("gpu2")
	got := slices.Sorted(maps.Keys(gather()))
	if want := "spacehost_device_healthy gpu2, spacehost_device_memory_bytes gpu2, spacehost_device_processes gpu2, spacehost_node_connections_total gpu2, spacehost_node_in_service gpu2, spacehost_node_in_service old, " +
		"spacehost_node_round_trip_seconds gpu2, spacehost_node_state gpu2, spacehost_node_state old, spacehost_slots gpu2"; strings.Join(got, ", ") != want {
		t.Errorf("series %q, want %q", got, want)
	}
	m.NodeForgotten("gpu2")
	if n := gather()["spacehost_node_connections_total gpu2"]; n != 0 {
		t.Errorf("%d counters of a forgotten node", n)
	}
}
