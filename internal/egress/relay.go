package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// burstTime bounds one splice, so that the counters are current and an idle connection holds no pipe. A splice
	// holds a pipe, two descriptors, while it waits.
	burstTime = time.Second
	// burstSize bounds the bytes of one splice.
	burstSize = 64 << 20
)

var errIdle = errors.New("no data for the idle timeout")

// relay connects an accepted connection with its destination, if the Policy allows that, and returns after its end.
func (e *Egress) relay(inner *net.TCPConn) {
	to := e.resolveDestination(unmap(e.destination(inner)))
	if err := e.policy.Allows(to); err != nil {
		e.refuse(err)
		reset(inner)
		return
	}
	outer, early, err := e.connect(to)
	if err != nil {
		if e.ctx.Err() == nil {
			e.counters.failed.Add(1)
			e.journal.fail(to, err)
		}
		reset(inner)
		return
	}
	if !e.track(outer) {
		reset(inner)
		return
	}
	defer e.untrack(outer)
	e.counters.opened.Add(1)
	e.counters.open.Add(1)
	defer e.counters.open.Add(-1)
	e.join(inner, outer, early)
}

// resolveDestination adds what the Policy needs to know about an address.
func (e *Egress) resolveDestination(to netip.AddrPort) Destination {
	return Destination{Addr: to, Name: e.names.of(to.Addr()), Own: e.own.contains(to.Addr())}
}

// connect dials a destination, by the proxy if one is set for it. early is what the destination has sent already.
func (e *Egress) connect(to Destination) (outer *net.TCPConn, early []byte, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, dialTimeout)
	defer cancel()
	if proxy := e.proxyFor(to); proxy != nil {
		return e.connectBy(ctx, proxy, to)
	}
	outer, err = e.dialTCP(ctx, to.Addr.String())
	return outer, nil, err
}

func (e *Egress) dialTCP(ctx context.Context, address string) (*net.TCPConn, error) {
	c, err := e.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close() // unusable in any case
		return nil, fmt.Errorf("dial %s: got a %T, not a TCP connection", address, c)
	}
	return tcp, nil
}

// join passes bytes on in both directions until both have ended. After an error both connections are reset.
func (e *Egress) join(inner, outer *net.TCPConn, early []byte) {
	active := &activity{since: time.Now()}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.pass(outer, inner, &e.counters.sent, active)
	}()
	// A write that fails leaves a broken connection, which pass resets.
	n, _ := inner.Write(early)
	e.counters.received.Add(int64(n))
	e.pass(inner, outer, &e.counters.received, active)
	<-ended
}

// pass moves bytes from src to dst until src ends, then ends dst's direction.
func (e *Egress) pass(dst, src *net.TCPConn, total *atomic.Int64, active *activity) {
	err := e.move(dst, src, total, active)
	if errors.Is(err, io.EOF) {
		err = dst.CloseWrite()
	}
	if err != nil {
		reset(src)
		reset(dst)
	}
}

// move returns io.EOF after the end of src.
func (e *Egress) move(dst, src *net.TCPConn, total *atomic.Int64, active *activity) error {
	for {
		if err := e.awaitData(src, active); err != nil {
			return err
		}
		n, err := e.burst(dst, src)
		if n > 0 {
			total.Add(n)
			active.touch()
		}
		if err != nil {
			return err
		}
	}
}

// awaitData returns nil when src has data, io.EOF at its end, and errIdle if neither direction had data for too long.
func (e *Egress) awaitData(src *net.TCPConn, active *activity) error {
	for {
		left := e.idle - active.age()
		if left <= 0 {
			return errIdle
		}
		if err := src.SetReadDeadline(time.Now().Add(left)); err != nil {
			return err
		}
		if err := peek(src); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// burst splices what src has, for at most burstTime. It returns io.EOF at the end of src.
func (e *Egress) burst(dst, src *net.TCPConn) (int64, error) {
	start := time.Now()
	if err := src.SetReadDeadline(start.Add(min(burstTime, e.idle/2))); err != nil {
		return 0, err
	}
	if err := dst.SetWriteDeadline(start.Add(e.idle)); err != nil {
		return 0, err
	}
	n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: burstSize})
	switch {
	case err == nil && n < burstSize:
		return n, io.EOF
	// The read deadline passes while the pipe is empty, so no byte is lost. Once the write deadline has passed too, bytes
	// may have stayed in the pipe.
	case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(start) < e.idle:
		return n, nil
	}
	return n, err
}

// peek blocks until src has data, without reading it. It returns io.EOF at the end of src.
func peek(src *net.TCPConn) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var errno error
	var first [1]byte
	err = raw.Read(func(fd uintptr) bool {
		n, _, errno = unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(errno, unix.EAGAIN) && !errors.Is(errno, unix.EINTR)
	})
	switch {
	case err != nil:
		return err
	case errno != nil:
		return os.NewSyscallError("recvfrom", errno)
	case n == 0:
		return io.EOF
	}
	return nil
}

// activity is the time of the latest data in either direction of a connection.
type activity struct {
	since  time.Time
	latest atomic.Int64 // nanoseconds after since
}

func (a *activity) touch() { a.latest.Store(int64(time.Since(a.since))) }

func (a *activity) age() time.Duration { return time.Since(a.since) - time.Duration(a.latest.Load()) }
