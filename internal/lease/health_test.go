package lease

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

// reporting is an Inventory with driver errors from the test.
type reporting struct {
	*gputest.FakeInventory
	xids chan gpu.Xid
}

func (r reporting) Watch(ctx context.Context, tell func(gpu.DeviceUUID, gpu.Xid)) error {
	for {
		select {
		case xid := <-r.xids:
			tell(device0, xid)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestHardwareErrorDrainsAndIsNotCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBrokerHarness(t)
		driver := reporting{h.inventory, make(chan gpu.Xid)}
		var reported []gpu.Xid
		h.Broker = h.newBroker(func(c *Config) {
			c.Machine.(*Local).Pool, c.Reported = h.pool(driver), func(_ gpu.DeviceUUID, xid gpu.Xid) { reported = append(reported, xid) }
		})
		h.run()
		g := h.active(100)
		driver.xids <- 31
		synctest.Wait()
		if got, _ := h.Drains(); len(got) != 0 {
			t.Errorf("an application error has drained %+v", got)
		}
		time.Sleep(3 * time.Second)
		driver.xids <- 79
		synctest.Wait()
		drains, _ := h.Drains()
		if d := drains[device0]; d.Operator || !strings.Contains(d.Reason, "Xid 79") || !strings.Contains(d.Reason, "spacehost gpu return GPU-fake-0") {
			t.Errorf("drained: %+v", d)
		}
		if !slices.Equal(reported, []gpu.Xid{31, 79}) {
			t.Errorf("reported: %v, want both", reported)
		}
		h.release(g)
		h.wantBalance(ada, 0, 0)
		synctest.Wait()
		if got := h.Slots()[0]; got.Phase != "drained" {
			t.Errorf("slot: %+v", got)
		}
		if err := h.Return(t.Context(), device0); err != nil {
			t.Fatal(err)
		}
		h.release(h.active(101))
	})
}
