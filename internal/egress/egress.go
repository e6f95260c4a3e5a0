package egress

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Lookup is the host's resolver, for example net.DefaultResolver. LookupNetIP blocks until the answer or the end of ctx
// and may be called by many goroutines. A *net.DNSError with IsNotFound means that the name has no address.
type Lookup interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var _ Lookup = (*net.Resolver)(nil)

// Dial opens a TCP connection from the host, as net.Dialer.DialContext does. The result must be a *net.TCPConn.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Config is what an Egress needs. All fields but Space may stay zero.
type Config struct {
	// Space is the name of the Space in the log.
	Space string
	// Policy decides which destinations and names are allowed; the zero value is the Hub's rule.
	Policy Policy
	// Dial connects to allowed destinations and to the proxy; nil is a net.Dialer.
	Dial Dial
	// Resolver answers the Space's lookups; nil is net.DefaultResolver.
	Resolver Lookup
	// Own returns this machine's addresses; nil reads those of the network interfaces. It is called at most once per
	// second, and only when a connection or lookup needs it.
	Own func() ([]netip.Addr, error)
	// Proxy is the operator's HTTP proxy; nil is none.
	Proxy *Proxy
	// Connections is the number of connections that may be open at a time; 0 is 256.
	Connections int
	// Logger receives refusals and failed dials; nil is silent.
	Logger *zap.Logger
	// Now is the wall clock; nil is the real one.
	Now func() time.Time
}

const (
	defaultConnections = 256
	idleTimeout        = 10 * time.Minute
	dialTimeout        = 10 * time.Second
)

// Egress is the host's end of the network of one start of one Space. Its methods may be called by many goroutines. An
// Egress owns the listeners and sockets that it serves and closes them.
type Egress struct {
	policy   Policy
	dial     Dial
	resolver Lookup
	proxy    *Proxy
	own      *ownAddresses
	names    *nameMemory
	journal  *journal
	log      *zap.Logger
	idle     time.Duration

	// destination returns the destination of an accepted connection. Only tests replace it.
	destination func(*net.TCPConn) netip.AddrPort

	relays   chan struct{} // a slot per relayed connection
	tcpDNS   chan struct{} // a slot per connection to the resolver
	lookups  chan struct{} // a slot per packet of the resolver
	counters counters

	ctx    context.Context // ends with Close; dials and lookups use it
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines and all calls of Serve methods

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{} // listeners, sockets and connections that Close ends
}

// counters are the sources of Stats.
type counters struct {
	open, opened, refused, failed, lookups atomic.Int64
	sent, received                         atomic.Int64
}

// Stats are counts since New. Bytes of open connections are at most one second old.
type Stats struct {
	// Open is the number of connections that are relayed now.
	Open int64
	// Opened is the number of connections that were relayed, Open included.
	Opened int64
	// Refused is the number of connections and lookups that the Policy or a limit denied.
	Refused int64
	// Failed is the number of allowed connections whose dial failed.
	Failed int64
	// Lookups is the number of requests to the host's resolver.
	Lookups int64
	// Sent and Received are bytes, seen from the Space.
	Sent, Received int64
}

// AtLeastZero returns the Stats of another machine without negative numbers.
func (s Stats) AtLeastZero() Stats {
	for _, n := range []*int64{&s.Open, &s.Opened, &s.Refused, &s.Failed, &s.Lookups, &s.Sent, &s.Received} {
		*n = max(0, *n)
	}
	return s
}

// New returns an Egress. It reads this machine's addresses once and fails if they or the Policy cannot be used.
func New(c Config) (*Egress, error) {
	if err := c.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("egress of Space %s: %w", c.Space, err)
	}
	c = c.withDefaults()
	own, err := newOwnAddresses(c.Own, c.Now)
	if err != nil {
		return nil, fmt.Errorf("egress of Space %s: %w", c.Space, err)
	}
	log := c.Logger.With(zap.String("space", c.Space))
	ctx, cancel := context.WithCancel(context.Background())
	return &Egress{
		policy: c.Policy, dial: c.Dial, resolver: c.Resolver, proxy: c.Proxy, own: own, log: log, idle: idleTimeout,
		names:       newNameMemory(c.Now),
		journal:     &journal{log: log, now: c.Now, logged: map[string]time.Time{}},
		destination: localAddr,
		relays:      make(chan struct{}, c.Connections),
		tcpDNS:      make(chan struct{}, maxDNSConnections),
		lookups:     make(chan struct{}, maxLookups),
		ctx:         ctx, cancel: cancel,
		open: map[io.Closer]struct{}{},
	}, nil
}

func (c Config) withDefaults() Config {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Own == nil {
		c.Own = interfaceAddresses
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func localAddr(c *net.TCPConn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// ServeTCP relays the connections of a listener inside the namespace. It blocks until Close or the end of the
// listener, then returns nil. It returns an error if the listener fails. It closes l.
func (e *Egress) ServeTCP(l net.Listener) error {
	return e.serve(l, e.relays, e.relay, func(c *net.TCPConn) {
		to := unmap(e.destination(c))
		e.refuse(&RefusedError{Destination: to, Name: e.names.of(to.Addr()), Reason: ReasonLimit})
	})
}

// ServeDNS answers the lookups that arrive at a UDP socket inside the namespace. It blocks as ServeTCP does.
func (e *Egress) ServeDNS(p net.PacketConn) error {
	if !e.track(p) {
		return net.ErrClosed
	}
	defer e.untrack(p)
	return e.servePackets(p)
}

// ServeDNSTCP answers the lookups that arrive at a TCP listener inside the namespace. It blocks as ServeTCP does.
func (e *Egress) ServeDNSTCP(l net.Listener) error {
	return e.serve(l, e.tcpDNS, e.serveStream, func(*net.TCPConn) {})
}

// Stats returns the counters.
func (e *Egress) Stats() Stats {
	c := &e.counters
	return Stats{
		Open: c.open.Load(), Opened: c.opened.Load(), Refused: c.refused.Load(), Failed: c.failed.Load(),
		Lookups: c.lookups.Load(), Sent: c.sent.Load(), Received: c.received.Load(),
	}
}

// LastRefusal returns the latest refusal; false if there was none.
func (e *Egress) LastRefusal() (Refusal, bool) { return e.journal.lastRefusal() }

// Close resets all connections, closes all listeners and sockets, and returns when all goroutines have ended. It may be
// called more than once; each call waits. The error is always nil.
func (e *Egress) Close() error {
	e.mu.Lock()
	e.closed = true
	all := make([]io.Closer, 0, len(e.open))
	for c := range e.open {
		all = append(all, c)
	}
	e.mu.Unlock()
	e.cancel()
	for _, c := range all {
		reset(c)
	}
	e.wg.Wait()
	return nil
}

func (e *Egress) refuse(err error) {
	e.counters.refused.Add(1)
	e.journal.refuse(err)
}

// track registers what Close must end, and counts its user. It closes c and returns false after Close.
func (e *Egress) track(c io.Closer) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		reset(c)
		return false
	}
	e.open[c] = struct{}{}
	e.wg.Add(1)
	return true
}

// untrack closes c and ends its registration.
func (e *Egress) untrack(c io.Closer) {
	_ = c.Close() // closed already, or its end changes nothing
	e.mu.Lock()
	delete(e.open, c)
	e.mu.Unlock()
	e.wg.Done()
}

// reset closes c; the peer of a connection receives RST.
func reset(c io.Closer) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails if the connection is closed already
	}
	_ = c.Close()
}
