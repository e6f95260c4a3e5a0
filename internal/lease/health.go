package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
)

// watchRetryDelay is the pause after the driver's event stream has failed.
const watchRetryDelay = 30 * time.Second

// watchHealth drains a Device when the driver reports a hardware error, until ctx ends. Errors that applications
// cause do not drain a Device.
func (b *Broker) watchHealth(ctx context.Context, machine Machine) {
	for {
		err := machine.Watch(ctx, func(uuid gpu.DeviceUUID, xid gpu.Xid) {
			if b.checkDevice(uuid) != nil { // another program's, by the list of GPUs to use
				return
			}
			b.log.Warn("driver reported an error", zap.String("device", string(uuid)), zap.Int("xid", int(xid)), zap.Bool("condemns", xid.Condemns()))
			b.recordDriverError(uuid, xid)
			if b.config.Reported != nil {
				b.config.Reported(uuid, xid)
			}
			if xid.Condemns() {
				b.drainDevice(uuid, Drain{Reason: fmt.Sprintf("the driver has reported %s, a hardware error: check `dmesg`, then run `spacehost gpu return %s`", xid, uuid)})
			}
		})
		if ctx.Err() != nil || err == nil {
			return
		}
		b.log.Warn("driver error watch stopped", zap.Error(err))
		if none := (*gpu.NotSupportedError)(nil); errors.As(err, &none) || !pause(ctx.Done(), watchRetryDelay) {
			return
		}
	}
}
