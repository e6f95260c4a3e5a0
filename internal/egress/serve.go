package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// maxPause bounds the pause of an accept loop that has no descriptor or memory.
const maxPause = time.Second

// serve accepts connections and runs handle for each in a goroutine of its own. If all slots are in use, the connection
// is reset after a call of full.
func (e *Egress) serve(l net.Listener, slots chan struct{}, handle, full func(*net.TCPConn)) error {
	if !e.track(l) {
		return net.ErrClosed
	}
	defer e.untrack(l)
	for pause := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if pause, err = e.afterError(pause, err); err != nil {
				return fmt.Errorf("accept connections of the Space: %w", err)
			}
			if pause == 0 {
				return nil
			}
			continue
		}
		pause = 0
		e.start(c, slots, handle, full)
	}
}

// start runs handle if a slot is free.
func (e *Egress) start(c net.Conn, slots chan struct{}, handle, full func(*net.TCPConn)) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		e.log.Error("egress listener accepts connections that are not TCP", zap.String("type", fmt.Sprintf("%T", c)))
		_ = c.Close() // unusable in any case
		return
	}
	select {
	case slots <- struct{}{}:
	default:
		full(tcp)
		reset(tcp)
		return
	}
	if !e.track(tcp) {
		<-slots
		return
	}
	go func() {
		defer e.untrack(tcp)
		defer func() { <-slots }()
		handle(tcp)
	}()
}

// afterError returns the pause that has passed after an error of a listener or socket. The pause is 0 if it was closed.
// An error that is not temporary comes back.
func (e *Egress) afterError(pause time.Duration, err error) (time.Duration, error) {
	switch {
	case errors.Is(err, net.ErrClosed):
		return 0, nil
	case !isTemporary(err):
		return 0, err
	}
	pause = min(max(2*pause, 5*time.Millisecond), maxPause)
	e.log.Warn("egress pauses", zap.Error(err), zap.Duration("took", pause))
	wait(e.ctx, pause)
	return pause, nil
}

func isTemporary(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPROTO, unix.EINTR} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
