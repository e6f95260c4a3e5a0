package worker

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// outbox buffers frames for a runner that reads slowly, so that Send never blocks the queue. Its size is bounded by
// the number of concurrent Jobs.
type outbox struct {
	// try writes what the channel accepts at once, so that the start of a Job waits for no other goroutine.
	try func(data []byte) (written int)

	mu      sync.Mutex
	cond    *sync.Cond
	unsent  [][]byte
	writing bool // run is writing a frame that it has removed
	closed  bool
}

func newOutbox(try func([]byte) int) *outbox {
	o := &outbox{try: try}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *outbox) put(f Frame) {
	parts := f.parts()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	for _, data := range parts {
		if !o.writing && len(o.unsent) == 0 {
			data = data[o.try(data):]
		}
		if len(data) > 0 {
			o.unsent = append(o.unsent, data)
			o.cond.Signal()
		}
	}
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Signal()
}

func (o *outbox) next() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing = false; len(o.unsent) == 0 && !o.closed; {
		o.cond.Wait()
	}
	if o.closed {
		return nil, false
	}
	data := o.unsent[0]
	o.unsent[0] = nil // the array may outlive a large payload
	o.unsent, o.writing = o.unsent[1:], true
	return data, true
}

// run writes until the outbox or the channel is closed. The reader of the channel sees the same error and handles
// it.
func (o *outbox) run(w io.Writer) {
	for {
		data, ok := o.next()
		if !ok {
			return
		}
		if _, err := w.Write(data); err != nil {
			o.close()
			return
		}
	}
}

// tryWrite returns a function that writes as much as the connection accepts without blocking.
func tryWrite(conn syscall.RawConn) func([]byte) int {
	return func(data []byte) (n int) {
		_ = conn.Write(func(fd uintptr) bool { // the write of the rest returns any error again
			n, _ = unix.SendmsgN(int(fd), data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return true
		})
		return max(0, n)
	}
}
