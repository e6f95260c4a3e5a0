package nvml

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
)

func inject(t *testing.T, s *Simulation, uuid gpu.DeviceUUID, fault string) {
	t.Helper()
	f, err := gpu.ParseFault(fault)
	if err == nil {
		err = s.Fault(uuid, f)
	}
	if err != nil {
		t.Fatalf("Fault(%s, %s): %v", uuid, fault, err)
	}
}

func poolOf(t *testing.T, s *Simulation) *gpu.Pool {
	t.Helper()
	pool, err := gpu.NewPool(t.Context(), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func mustBeClear(t *testing.T, pool *gpu.Pool, uuid gpu.DeviceUUID) {
	t.Helper()
	if err := pool.Clear(t.Context(), uuid, gpu.Neighbours{}); err != nil {
		t.Errorf("Clear(%s) = %v; want nil", uuid, err)
	}
}

func TestLostDeviceIsLostUntilCleared(t *testing.T) {
	s := simulated(t, "2xT4")
	pool := poolOf(t, s)
	inject(t, s, t4[0], "lost")
	err := pool.Clear(t.Context(), t4[0], gpu.Neighbours{})
	if lost, ok := errors.AsType[*gpu.LostError](err); !ok || lost.UUID != t4[0] {
		t.Errorf("Clear = %v; want LostError of %s", err, t4[0])
	}
	if _, err := s.Memory(t.Context(), t4[0]); err == nil || !strings.Contains(err.Error(), "is lost") {
		t.Errorf("Memory of a lost device fails with %v", err)
	}
	mustBeClear(t, pool, t4[1])
	rows := pool.Status(t.Context())
	if want := []gpu.Fault{{Kind: gpu.FaultLost}}; !strings.Contains(rows[0].Error, "is lost") || !reflect.DeepEqual(rows[0].Faults, want) || rows[1].Faults != nil {
		t.Errorf("status: %+v", rows)
	}
	inject(t, s, t4[0], "clear")
	mustBeClear(t, pool, t4[0])
}

func TestHangingDeviceHangsUntilCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulated(t, "2xT4")
		pool := poolOf(t, s)
		inject(t, s, t4[0], "hang")
		began := time.Now()
		err := pool.Clear(t.Context(), t4[0], gpu.Neighbours{})
		if hung, ok := errors.AsType[*gpu.HungError](err); !ok || hung.UUID != t4[0] || time.Since(began) != callLimit {
			t.Errorf("Clear = %v after %s; want HungError after %s", err, time.Since(began), callLimit)
		}
		mustBeClear(t, pool, t4[1])
		inject(t, s, t4[0], "clear")
		synctest.Wait() // the hung call returns
		mustBeClear(t, pool, t4[0])
	})
}

func TestHangingCallReturnsWhenDeviceIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulated(t, "1xT4")
		inject(t, s, t4[0], "hang")
		answered := make(chan error, 1)
		go func() { _, err := s.Memory(t.Context(), t4[0]); answered <- err }()
		synctest.Wait()
		inject(t, s, t4[0], "lost")
		if _, ok := errors.AsType[*gpu.LostError](<-answered); !ok {
			t.Error("the hanging call did not fail with LostError")
		}
	})
}

func TestStuckMemoryStaysUntilCleared(t *testing.T) {
	alive := map[int]bool{6: true, 7: true}
	s, err := simulate(1, "T4", func(pid int) ([]byte, error) {
		if alive[pid] {
			return []byte(statLine("python", "S", 1000)), nil
		}
		return nil, os.ErrNotExist
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s.Inventory)
	pool := poolOf(t, s)
	for pid := range alive {
		if err := s.Occupy(t4[0], pid); err != nil {
			t.Fatal(err)
		}
	}
	delete(alive, 6) // before the fault: its memory comes back
	inject(t, s, t4[0], "memory-stuck")
	delete(alive, 7)
	for range 2 { // it is not counted again at each read
		mustList(t, s, t4[0], "after they exited")
		err := pool.Clear(t.Context(), t4[0], gpu.Neighbours{})
		if busy, ok := errors.AsType[*gpu.BusyError](err); !ok || len(busy.PIDs) > 0 || busy.Used != idleMemory+occupantMemory {
			t.Errorf("Clear = %v; want no process, and the memory of one in use", err)
		}
	}
	inject(t, s, t4[0], "clear")
	mustBeClear(t, pool, t4[0])
}

func TestXidsAreListedAndDeviceStaysClear(t *testing.T) {
	s := simulated(t, "1xT4")
	pool := poolOf(t, s)
	for _, fault := range []string{"xid=79", "xid=31", "xid=79"} {
		inject(t, s, t4[0], fault)
	}
	mustBeClear(t, pool, t4[0])
	want := []gpu.Fault{{Kind: gpu.FaultXid, Xid: 79}, {Kind: gpu.FaultXid, Xid: 31}}
	if got := s.Faults(t4[0]); !reflect.DeepEqual(got, want) {
		t.Errorf("faults are %v; want %v", got, want)
	}
	inject(t, s, t4[0], "clear")
	if got := s.Faults(t4[0]); got != nil {
		t.Errorf("faults after clear: %v", got)
	}
}

func TestOnlySimulationIsFaulter(t *testing.T) {
	if _, ok := any(&Inventory{}).(gpu.Faulter); ok {
		t.Error("a real Inventory is a gpu.Faulter: faults must not be injected into real GPUs")
	}
}
