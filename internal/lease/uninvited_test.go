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
func uninvitedHouse(t *testing.T, end bool) (h *house, told *[]Uninvited) {
	told = new([]Uninvited)
	h = newHouse(t)
	devices := gputest.Devices(1)
	devices[0].Simulated = true
	h.inventory = gputest.NewFakeInventory(devices...)
	h.Broker = h.newBroker(func(c *Config) {
		c.EndUninvited, c.Uninvited = end, func(u Uninvited) {
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
				h, told := uninvitedHouse(t, row.end)
				h.processes.Start(row.space, 77)
				h.inventory.SetProcesses(device0, gpu.Process{PID: 77, Memory: 1 << 30})
				time.Sleep(3 * inspectEvery)
				synctest.Wait()
				want := Uninvited{Device: device0, PID: 77, Space: row.space, Ended: row.end && row.space != ""}
				if len(*told) != 1 || !(*told)[0].is(want) {
					t.Fatalf("told %+v, want once %+v", *told, want)
				}
				if got := h.Uninvited(); len(got) != 1 && row.lives || row.lives && !got[0].is(want) {
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
				time.Sleep(2 * inspectEvery)
				synctest.Wait()
				if got, phase := h.Uninvited(), h.Slots()[0].Phase; len(got) != 0 || row.lives && phase != string(free) {
					t.Errorf("after it has left: %+v, its slot is %s", got, phase)
				}
			})
		})
	}
}

func (u Uninvited) is(o Uninvited) bool {
	return u.Device == o.Device && u.PID == o.PID && u.Space == o.Space && u.Ended == o.Ended
}

// TestGuestsAreInvited: a worker with a Lease, and one that comes and goes between two looks.
func TestGuestsAreInvited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, told := uninvitedHouse(t, true)
		h.active(100)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30}, gpu.Process{PID: 88, Memory: 1 << 30})
		time.Sleep(inspectEvery + inspectEvery/2)
		h.inventory.SetProcesses(device0, gpu.Process{PID: 100, Memory: 1 << 30})
		time.Sleep(3 * inspectEvery)
		synctest.Wait()
		if len(*told) != 0 || !h.processes.Alive(100) {
			t.Errorf("told %+v, the worker lives: %v", *told, h.processes.Alive(100))
		}
	})
}
