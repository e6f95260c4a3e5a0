package lease

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

// newUnleasedHarness has a simulated Device: for a real one, the pids in a container differ.
func newUnleasedHarness(t *testing.T, end bool, alter ...func(*Config)) (h *brokerHarness, reported *[]Unleased) {
	reported = new([]Unleased)
	h = newBrokerHarness(t)
	devices := gputest.Devices(1)
	devices[0].Simulated = true
	h.inventory = gputest.NewFakeInventory(devices...)
	h.Broker = h.newBroker(append(alter, func(c *Config) {
		c.EndUnleased, c.Unleased = end, func(u Unleased) {
			if *reported = append(*reported, u); u.Ended {
				h.inventory.SetProcesses(device0)
			}
		}
	})...)
	return h.run(), reported
}

func TestUnleasedProcesses(t *testing.T) {
	for name, row := range map[string]struct {
		space    string // of the process on the Device; "": of no Space
		end      bool
		survives bool
	}{
		"of a Space, shown":              {"demo", false, true},
		"of a Space, ended":              {"demo", true, false},
		"a foreign process is not ended": {"", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, reported := newUnleasedHarness(t, row.end)
				h.processes.Start(row.space, 77)
				h.inventory.SetProcesses(device0, gpu.Process{PID: 77, Memory: 1 << 30})
				time.Sleep(3 * inspectInterval)
				synctest.Wait()
				want := Unleased{Device: device0, PID: 77, Space: row.space, Ended: row.end && row.space != ""}
				if len(*reported) != 1 || !(*reported)[0].equals(want) {
					t.Fatalf("reported %+v, want once %+v", *reported, want)
				}
				if got := h.Unleased(); len(got) != 1 && row.survives || row.survives && !got[0].equals(want) {
					t.Errorf("Unleased returned %+v, want %+v", got, want)
				}
				if phase := h.Slots()[0].Phase; (phase == string(busy)) != row.survives {
					t.Errorf("its slot is %s, want the process to survive: %v", phase, row.survives)
				}
				if h.processes.Alive(77) != row.survives {
					t.Errorf("the process runs: %v, want %v", h.processes.Alive(77), row.survives)
				}
				if n := strings.Count(h.journal.String(), "gpu used outside any lease"); n != 1 {
					t.Errorf("logged %d times:\n%s", n, h.journal.String())
				}
				if _, err := h.schedule(declared(time.Second)).Wait(t.Context()); (err == ErrTimedOut) != row.survives {
					t.Errorf("the wait for the device ended with %v", err)
				}
				h.inventory.SetProcesses(device0)
				time.Sleep(2 * inspectInterval)
				synctest.Wait()
				if got, phase := h.Unleased(), h.Slots()[0].Phase; len(got) != 0 || row.survives && phase != string(free) {
					t.Errorf("after its exit: %+v, its slot is %s", got, phase)
				}
			})
		})
	}
}

func (u Unleased) equals(o Unleased) bool {
	return u.Device == o.Device && u.PID == o.PID && u.Space == o.Space && u.Ended == o.Ended
}

// TestWorkersAreNotUnleased: a worker with a Lease, and a process that exits between two inspections.
func TestWorkersAreNotUnleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, reported := newUnleasedHarness(t, true)
		h.active(100)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30}, gpu.Process{PID: 88, Memory: 1 << 30})
		time.Sleep(inspectInterval + inspectInterval/2)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30})
		time.Sleep(3 * inspectInterval)
		synctest.Wait()
		if len(*reported) != 0 || !h.processes.Alive(100) {
			t.Errorf("reported %+v, the worker runs: %v", *reported, h.processes.Alive(100))
		}
	})
}
