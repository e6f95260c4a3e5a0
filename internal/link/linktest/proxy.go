package linktest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Direction is that of bytes through a Proxy.
type Direction int

// The directions.
const (
	ToFront Direction = iota
	ToAgent
)

// Proxy is a network between agents and a front, with its faults. Bytes that it holds back arrive later, as with TCP. Its methods are safe
// for concurrent use, and also change the connections that are open.
type Proxy struct {
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	ctx      context.Context
	running  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	delay   time.Duration
	rate    int // bytes a second in each direction; 0: no limit
	deaf    [2]bool
	cut     bool
	left    int64 // bytes until a cut; negative: no limit
	count   int   // connections since the start
	conns   map[*proxied]struct{}
}

// proxied is one connection through a Proxy.
type proxied struct {
	number       int
	agent, front net.Conn
	done         context.Context
	end          context.CancelFunc
	halfOpen     bool // the agent's side is closed, and the front does not notice
}

// NewTCPProxy returns a proxy on a loopback port, in front of a TCP address. It ends with the test.
func NewTCPProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return NewProxy(t, listener, func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", target) })
}

// NewProxy returns a proxy that accepts from a listener, and connects to the front by dial. It ends with the test.
func NewProxy(t testing.TB, listener net.Listener, dial func(ctx context.Context) (net.Conn, error)) *Proxy {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{listener: listener, dial: dial, ctx: ctx, changed: make(chan struct{}), left: -1, conns: map[*proxied]struct{}{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		cancel()
		listener.Close()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Addr returns where agents connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// SetDelay delays all bytes, in each direction.
func (p *Proxy) SetDelay(d time.Duration) { p.change(func() { p.delay = d }) }

// SetRate limits each direction of each connection to bytes a second; 0: no limit.
func (p *Proxy) SetRate(bytes int) { p.change(func() { p.rate = bytes }) }

// Deafen holds back all bytes of a direction, and the end of connections, until Heal.
func (p *Proxy) Deafen(d Direction) { p.change(func() { p.deaf[d] = true }) }

// Partition holds back all bytes of both directions until Heal.
func (p *Proxy) Partition() { p.change(func() { p.deaf = [2]bool{true, true} }) }

// Cut closes all connections and refuses others until Heal.
func (p *Proxy) Cut() {
	p.change(func() { p.cut = true })
	for _, c := range p.open() {
		c.reset()
	}
}

// Heal ends Deafen, Partition and Cut, and the limit of DropAfter.
func (p *Proxy) Heal() {
	p.change(func() { p.deaf, p.cut, p.left = [2]bool{}, false, -1 })
}

// DropAfter cuts the network after n more bytes, of all connections and directions together.
func (p *Proxy) DropAfter(n int64) { p.change(func() { p.left = n }) }

// HalfOpen closes the agent's side of the open connections. The front's side stays open and silent.
func (p *Proxy) HalfOpen() {
	for _, c := range p.open() {
		p.change(func() { c.halfOpen = true })
		reset(c.agent)
	}
}

// Open returns the number of open connections.
func (p *Proxy) Open() int { return len(p.open()) }

func (p *Proxy) open() (all []*proxied) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

func (c *proxied) reset() {
	c.end()
	reset(c.agent)
	reset(c.front)
}

// reset closes a connection without waiting for bytes that are on their way.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

func (p *Proxy) accept() {
	for {
		agent, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(agent) })
	}
}

func (p *Proxy) serve(agent net.Conn) {
	front, err := p.dial(p.ctx)
	if err != nil {
		reset(agent)
		return
	}
	c := &proxied{agent: agent, front: front}
	c.done, c.end = context.WithCancel(p.ctx)
	p.mu.Lock()
	cut := p.cut
	p.count++
	c.number = p.count
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		c.reset()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}()
	if cut {
		return
	}
	var pumping sync.WaitGroup
	pumping.Go(func() { p.pump(c, ToFront, agent, front) })
	pumping.Go(func() { p.pump(c, ToAgent, front, agent) })
	pumping.Wait()
}

// parcel is what has been read in one go.
type parcel struct {
	data []byte
	due  time.Time
	err  error
}

// pump moves the bytes of one direction until it ends.
func (p *Proxy) pump(c *proxied, d Direction, from, to net.Conn) {
	parcels := make(chan parcel, 64)
	p.running.Go(func() {
		defer close(parcels)
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			select {
			case parcels <- parcel{data[:n], time.Now().Add(p.currentDelay()), err}:
			case <-c.done.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	for parcel := range parcels {
		if !p.pass(c, d, len(parcel.data), parcel.due) {
			break
		}
		if _, err := to.Write(parcel.data); err != nil {
			break
		}
		if parcel.err != nil {
			p.finish(c, to, parcel.err)
			break
		}
	}
	for range parcels { // until the reader has ended
	}
}

func (p *Proxy) currentDelay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// pass waits until n bytes may pass. It reports false if the connection ends first.
func (p *Proxy) pass(c *proxied, d Direction, n int, due time.Time) bool {
	for {
		p.mu.Lock()
		held, changed, left, rate := p.deaf[d] || c.halfOpen, p.changed, p.left, p.rate
		if !held && left >= 0 {
			p.left = max(0, left-int64(n))
		}
		p.mu.Unlock()
		switch {
		case !held && left >= 0 && int64(n) > left:
			p.running.Go(p.Cut)
			return false
		case !held:
			wait := max(0, time.Until(due))
			if rate > 0 {
				wait += time.Duration(n) * time.Second / time.Duration(rate)
			}
			return c.wait(wait)
		}
		select {
		case <-changed:
		case <-c.done.Done():
			return false
		}
	}
}

// wait reports false if the connection ends first.
func (c *proxied) wait(d time.Duration) bool {
	if d <= 0 {
		return c.done.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.done.Done():
		return false
	}
}

// finish passes the end of a direction on.
func (p *Proxy) finish(c *proxied, to net.Conn, err error) {
	half, ok := to.(interface{ CloseWrite() error })
	if ok && errors.Is(err, io.EOF) {
		_ = half.CloseWrite()
		return
	}
	c.reset()
}

// EndStreams closes all open connections but the first, which is the control connection of the only link.
func (p *Proxy) EndStreams() {
	all := p.open()
	slices.SortFunc(all, func(a, b *proxied) int { return a.number - b.number })
	for _, c := range all[min(1, len(all)):] {
		c.reset()
	}
}
