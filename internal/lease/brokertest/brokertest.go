// Package brokertest runs a lease.Broker for tests of what reads it.
package brokertest

import (
	"context"
	"testing"

	"spacehost/gpu"
	"spacehost/internal/lease"
)

// WithoutGPU runs a Broker on a machine without a GPU until the end of the test.
func WithoutGPU(t testing.TB, config lease.Config) *lease.Broker {
	t.Helper()
	config.Machine = &lease.Local{Pool: pool(t, gpu.None{})}
	broker, err := lease.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = broker.Run(ctx) }() // its error is that ctx has ended
	t.Cleanup(func() { stop(); <-ended })
	return broker
}

// Node is a machine with a name, and the Devices of an inventory.
type Node struct {
	*lease.Local
	name string
}

// Join lets a machine join a Broker that runs.
func Join(t testing.TB, broker *lease.Broker, name string, inventory gpu.Inventory) {
	t.Helper()
	node := &Node{&lease.Local{Pool: pool(t, inventory)}, name}
	if err := broker.Join(node, lease.MachineReport{}); err != nil {
		t.Fatal(err)
	}
}

// Name implements lease.Machine.
func (n *Node) Name() string { return n.name }

// Status implements lease.Machine.
func (n *Node) Status(ctx context.Context) []gpu.DeviceStatus {
	rows := n.Local.Status(ctx)
	for i := range rows {
		rows[i].Node = n.name
	}
	return rows
}

func pool(t testing.TB, inventory gpu.Inventory) *gpu.Pool {
	t.Helper()
	pool, err := gpu.NewPool(t.Context(), inventory, 1)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}
