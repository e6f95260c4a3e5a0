package machine

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/lease"
	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

func openAgent(t *testing.T, spec string) *Agent {
	t.Helper()
	a, err := Open(t.Context(), OpenConfig{GPUs: spec, Share: 2, Machine: "gpu2"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) }) // ends with ctx
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// TestAgentOverLoopback uses the simulated GPUs of an agent over TCP.
func TestAgentOverLoopback(t *testing.T) {
	broker := newFakeBroker()
	fleet := NewFleet(broker, nil)
	server := &link.Server{
		CA: linktest.NewAuthority(t), Handler: fleet, Authorize: func(string, [32]byte) error { return nil },
		Hello: func(l *link.Link, hello json.RawMessage) (any, error) { return fleet.Hello(l, hello) },
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait() })

	a := openAgent(t, "mock:2xH200")
	hello, err := a.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, welcome, err := link.Dial(t.Context(), listener.Addr().String(), linktest.NewIdentity(t, server.CA, "gpu2"), hello, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); l.Wait() })
	a.Connected(l, welcome)

	m := broker.machine("gpu2")
	device := m.Slots()[0].Device
	worker := exec.Command("sleep", "600")
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = worker.Process.Kill(); _ = worker.Wait() }()
	if err := m.Occupy(device.UUID, lease.Worker{PID: worker.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	rows := m.Status(t.Context())
	if len(rows) != 2 || rows[0].Device != device || rows[0].Node != "gpu2" || len(rows[0].Processes) != 1 || rows[0].Processes[0].PID != worker.Process.Pid {
		t.Errorf("status %+v", rows)
	}
	if err := m.Clear(t.Context(), device.UUID, lease.Worker{}, nil); !errors.As(err, new(*gpu.BusyError)) {
		t.Errorf("clear: %v", err)
	}
	got := make(chan xid, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = m.Watch(ctx, func(device gpu.DeviceUUID, x gpu.Xid) { got <- xid{device, x} }) // ends with ctx
	})
	t.Cleanup(watching.Wait)
	t.Cleanup(stop)
	if err := a.pool.Inventory().(gpu.Faulter).Fault(device.UUID, gpu.Fault{Kind: gpu.FaultXid, Xid: 79}); err != nil {
		t.Fatal(err)
	}
	select {
	case x := <-got:
		if x != (xid{device.UUID, 79}) {
			t.Errorf("reported %+v", x)
		}
	case <-time.After(30 * time.Second):
		t.Error("the error of the GPU is not reported")
	}
}

func TestOpen(t *testing.T) {
	a := openAgent(t, "mock:2xH200")
	here, err := nvml.Simulated("2xH200")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	own, err := here.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slots := a.pool.Slots()
	if len(slots) != 4 || slices.ContainsFunc(slots, func(s gpu.Slot) bool { return s.Device.UUID == own[0].UUID || s.Device.UUID == own[1].UUID }) {
		t.Errorf("slots %+v", slots)
	}
	if err := a.Rescan(t.Context()); err != nil || !slices.Equal(a.machine().Slots(), slots) {
		t.Errorf("after a rescan: %+v, %v", a.machine().Slots(), err)
	}
	wrong := map[string]string{"two": `--gpus two: unknown value; use auto, none, or mock:2xH200`, "mock:2xH1": "--gpus mock:2xH1: simulate"}
	if _, err := os.Stat("/proc/driver/nvidia"); err != nil {
		wrong["auto"] = "--gpus auto: no NVIDIA GPU was found on this machine; run `spacehost doctor`"
	}
	for spec, want := range wrong {
		if _, err := Open(t.Context(), OpenConfig{GPUs: spec}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	none, err := Open(t.Context(), OpenConfig{GPUs: "none"})
	if err != nil || len(none.pool.Slots()) != 0 {
		t.Errorf("none: %v", err)
	}
}
