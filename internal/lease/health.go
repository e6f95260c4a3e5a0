package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// watchAgain is the pause after a driver has stopped to report.
const watchRetryDelay = 30 * time.Second

// watchHealth drains a Device when the driver reports an error of its hardware, until ctx ends. What an application has
// done wrong condemns nothing.
func (b *Broker) watchHealth(ctx context.Context) {
	watcher, ok := b.config.Pool.Inventory().(gpu.Watcher)
	if !ok {
		return
	}
	for {
		err := watcher.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) {
			b.log.Warn("driver reports an error", zap.String("device", string(uuid)), zap.Int("xid", int(xid)), zap.Bool("condemns", xid.Condemns()))
			if b.config.Reported != nil {
				b.config.Reported(uuid, xid)
			}
			if xid.Condemns() {
				b.drainDevice(uuid, Drain{Reason: fmt.Sprintf("the driver has reported %s, an error of the hardware: look into `dmesg`, then `spacehost gpu return %s`", xid, uuid)})
			}
		})
		if ctx.Err() != nil {
			return
		}
		b.log.Warn("errors of the driver are not heard", zap.Error(err))
		if none := (*gpu.NotSupportedError)(nil); errors.As(err, &none) || !pause(ctx.Done(), watchRetryDelay) {
			return
		}
	}
}
