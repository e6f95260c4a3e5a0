package lease

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

// uninvitedHouse has a simulated Device: of a true one, a container sees other pids.
func newUnleasedHarness(t *testing.T, end bool) (h *brokerHarness, told *[]Unleased) {
	told = new([]Unleased)
	h = newBrokerHarness(t)
	devices := gputest.Devices(1)
	devices[0].Simulated = true
	h.inventory = gputest.NewFakeInventory(devices...)
	h.Broker = h.newBroker(func(c *Config) {
		c.EndUnleased, c.Unleased = end, func(u Unleased) {
			if *told = append(*told, u); u.Ended {
				h.inventory.SetProcesses(device0)
			}
		}
	})
	return h.run(), told
}

func TestWhoIsOnADeviceOutsideALease(t *testing.T) {
	for name, row := range map[string]struct {
		space string // of the process on the Device; "": nobody's
		end   bool
		lives bool
	}{
		"a space's, shown":           {"demo", false, true},
		"a space's, ended":           {"demo", true, false},
		"a foreign one is not ended": {"", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, told := newUnleasedHarness(t, row.end)
				h.processes.Start(row.space, 77)
				h.inventory.SetProcesses(device0, gpu.Process{PID: 77, Memory: 1 << 30})
				time.Sleep(3 * inspectInterval)
				synctest.Wait()
				want := Unleased{Device: device0, PID: 77, Space: row.space, Ended: row.end && row.space != ""}
				if len(*told) != 1 || !(*told)[0].equals(want) {
					t.Fatalf("told %+v, want once %+v", *told, want)
				}
				if got := h.Unleased(); len(got) != 1 && row.lives || row.lives && !got[0].equals(want) {
					t.Errorf("shown %+v, want %+v", got, want)
				}
				if phase := h.Slots()[0].Phase; (phase == string(busy)) != row.lives {
					t.Errorf("its slot is %s, and it lives: %v", phase, row.lives)
				}
				if h.processes.Alive(77) != row.lives {
					t.Errorf("it lives: %v, want %v", h.processes.Alive(77), row.lives)
				}
				if n := strings.Count(h.journal.String(), "gpu used outside any lease"); n != 1 {
					t.Errorf("logged %d times:\n%s", n, h.journal.String())
				}
				if _, err := h.schedule(declared(time.Second)).Wait(t.Context()); (err == ErrTimedOut) != row.lives {
					t.Errorf("the wait for the device ended with %v", err)
				}
				h.inventory.SetProcesses(device0)
				time.Sleep(2 * inspectInterval)
				synctest.Wait()
				if got, phase := h.Unleased(), h.Slots()[0].Phase; len(got) != 0 || row.lives && phase != string(free) {
					t.Errorf("after it has left: %+v, its slot is %s", got, phase)
				}
			})
		})
	}
}

func (u Unleased) equals(o Unleased) bool {
	return u.Device == o.Device && u.PID == o.PID && u.Space == o.Space && u.Ended == o.Ended
}

// TestGuestsAreInvited: a worker with a Lease, and one that comes and goes between two looks.
func TestGuestsAreInvited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, told := newUnleasedHarness(t, true)
		h.active(100)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30}, gpu.Process{PID: 88, Memory: 1 << 30})
		time.Sleep(inspectInterval + inspectInterval/2)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30})
		time.Sleep(3 * inspectInterval)
		synctest.Wait()
		if len(*told) != 0 || !h.processes.Alive(100) {
			t.Errorf("told %+v, the worker lives: %v", *told, h.processes.Alive(100))
		}
	})
}
