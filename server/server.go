// Package server is the HTTP edge of the host: listeners, host-name checks, mounting, error responses and shutdown.
//
// # Terms
//
// A Site is one address with the routes that it answers. Names are the host names that a Site accepts. A visitor is
// the client of a request, possibly behind a reverse proxy.
//
// # Types and callers
//
// internal/host creates one Server with New, mounts every address and calls Run. A reload of the configuration mounts
// further addresses, serves them (Serve), and gives others up (HandOver, Unmount). Mount takes a TCP address,
// MountShared one TCP address with a Site per host name or path (Shared), MountSocket a unix socket for processes of this user and
// root. The address is taken at once, so a port conflict is reported before any long work. Packages gradioapi,
// console, deviceapi and hubapi register their routes on a Site.
//
// # Request path
//
//  1. A listener accepts the connection. A unix socket drops other users and refused processes. A TCP connection
//     escapes a literal "%" in a path, which net/http would refuse (targetFixer). The connections of one owner are bounded
//     (LimitOwners); those above the bound are answered with 503.
//  2. With TLS, the first byte shows whether the connection is encrypted. requireTLS redirects plain requests of other machines.
//     limitBodyTime bounds the time that the body may take.
//  3. behindProxies replaces the request with the visitor's, if Server.Visitor is set. A bad proxy header is
//     answered with 400.
//  4. Gate answers 421 for an unknown host name (DNS rebinding). SameOrigin answers 403 for cross-origin
//     requests. Each Site chooses its checks.
//  5. The Site's handler answers. ConnOf and PeerOf give it the connection and the peer.
//
// # Event streams
//
// A handler may take the connection over (http.Hijacker) and stream without net/http. Afterwards it calls Return on
// the connection, and the Server reads the next request from it. Package gradioapi writes its server-sent events this
// way.
//
// # Failure handling
//
// onError answers the errors of handlers with {"detail": ...}. An *echo.HTTPError keeps its status and text. Any
// other error is logged and answered with 500 without details. Nothing is written after the first byte of a response;
// a stream reports an error as a message of its own.
//
// A listener that cannot be opened returns *ListenError, which names the flag to change. If a listener fails later,
// Run shuts down and returns the error.
//
// # Shutdown
//
// When ctx ends, Run closes the listeners and waits one second for requests to finish. Streams end earlier by
// themselves: the queues notify them. Run then cancels the context of the remaining requests, closes their
// connections and returns.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
)

// Server holds the listeners of one host. Mount the Sites first, then call Run.
type Server struct {
	// Visitor, if set before the first Mount, restores the request that the visitor sent to a proxy in front of the
	// host. Its errors are sent to the visitor with status 400.
	Visitor func(*http.Request) (*http.Request, error)

	// TLS, if set before the first Mount, is the certificate of all TCP addresses. Programs on this machine and trusted proxies may
	// use the same addresses without TLS.
	TLS *Certificate

	// TrustProxy reports whether an address is a trusted proxy's; nil: none is.
	TrustProxy func(netip.Addr) bool

	limit *connLimit
	log   *zap.Logger
	base  context.Context // ends every request that is still running after the shutdown grace period
	abort context.CancelFunc

	bodyGrace time.Duration

	mu       sync.Mutex
	mounts   []*mount
	start    func(*mount) // serves a mount; nil unless Run runs
	attached map[*Attachment]bool
	closing  sync.WaitGroup // mounts that Unmount has closed
}

// mount is one listener with the handler of its requests, which HandOver replaces.
type mount struct {
	listener net.Listener
	returns  *returnListener
	http     *http.Server
	handler  atomic.Pointer[echo.Echo]
	given    atomic.Bool // Unmount has given the address back
}

// ServeHTTP implements http.Handler.
func (m *mount) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.Load().ServeHTTP(w, r) }

// New returns a Server without listeners. A nil logger is silent.
func New(log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	base, abort := context.WithCancel(context.Background())
	return &Server{log: log, base: base, abort: abort, bodyGrace: bodyGrace, limit: newConnLimit(log)}
}

// LimitOwners bounds the connections that an owner may have open at a time: to limits, by owner, or else to 256. find
// returns the owner of a connection, given its two ends; "" if the connection has none and is not bounded. Call it before
// Run.
func (s *Server) LimitOwners(find func(client, server netip.AddrPort) string, limits map[string]int) {
	s.limit.owner = find
	s.SetLimits(limits)
}

// SetLimits replaces the limits of LimitOwners. Connections above a lowered limit stay open.
func (s *Server) SetLimits(limits map[string]int) { s.limit.setLimits(limits) }

// ListenError reports that an address could not be taken.
type ListenError struct {
	Addr string
	Flag string // the flag that sets the address
	// Holder is the program that uses the address; "": not known.
	Holder string
	Err    error
}

func (e *ListenError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("%s is in use by %s: stop it, or choose another address with %s (:0 takes any free port)", e.Addr, cmp.Or(e.Holder, "another program"), e.Flag)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("%s needs more rights than this user has: choose a port above 1023 with %s", e.Addr, e.Flag)
	}
	return fmt.Sprintf("cannot listen on %s: %v; choose another address with %s", e.Addr, e.Err, e.Flag)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Site is one address. Register its routes before it is served.
type Site struct {
	*echo.Echo
	Addr *net.TCPAddr // nil for a socket

	mount *mount // nil at a shared address
}

// Mount takes a TCP address at once, so that a port in use is known before any long work. Run serves it; while Run runs,
// Serve does. flag names the option that set the address. Errors: *ListenError.
func (s *Server) Mount(addr, flag string) (Site, error) { return s.MountEcho(s.NewSite(), addr, flag) }

// MountEcho is Mount for the routes of an existing Site, which may be served at several addresses.
func (s *Server) MountEcho(e *echo.Echo, addr, flag string) (Site, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return Site{}, &ListenError{Addr: addr, Flag: flag, Err: err}
	}
	return Site{e, l.Addr().(*net.TCPAddr), s.add(l, e)}, nil
}

// MountListener is Mount at a listener that is open already, which it takes over.
func (s *Server) MountListener(l net.Listener) Site {
	e := s.NewSite()
	return Site{e, l.Addr().(*net.TCPAddr), s.add(l, e)}
}

// Serve begins to serve a Site that was mounted while Run runs. Before Run, and for a Site at a shared address, it does
// nothing.
func (s *Server) Serve(site Site) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if site.mount != nil && s.start != nil {
		s.start(site.mount)
	}
}

// With returns the Site of the same address with other routes, for HandOver.
func (s Site) With(e *echo.Echo) Site {
	s.Echo = e
	return s
}

// HandOver lets the routes of site, from Site.With, answer at its address from the next request on. Open streams of the
// former routes continue.
func (s *Server) HandOver(site Site) { site.mount.handler.Store(site.Echo) }

// Unmount gives the address of a Site back and returns at once. Requests have shutdownGrace to finish; streams that have
// taken their connection over continue. It does nothing at a shared address, or after HandOver to other routes.
func (s *Server) Unmount(site Site) {
	m := site.mount
	if m == nil || m.handler.Load() != site.Echo {
		return
	}
	m.given.Store(true)
	_ = m.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts = slices.DeleteFunc(s.mounts, func(one *mount) bool { return one == m })
	s.closing.Go(m.shutdown)
}

// MountSocket takes a unix socket that only this user and root may open. An existing socket file belongs to no
// running host and is replaced: the caller holds the lock of its folder. Connections of processes that refuse reports
// are dropped; refuse may be nil.
func (s *Server) MountSocket(path string, refuse func(pid int) bool) (Site, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Site{}, fmt.Errorf("replace socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return Site{}, &ListenError{Addr: path, Flag: "--state", Err: err}
	}
	e := s.NewSite()
	return Site{Echo: e, mount: s.add(&localUserListener{l, refuse}, e)}, nil
}

// IsListening reports whether the Server accepts connections to 127.0.0.1:port.
func (s *Server) IsListening(port int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.mounts, func(m *mount) bool {
		at, ok := m.listener.Addr().(*net.TCPAddr)
		return ok && at.Port == port && (at.IP.IsUnspecified() || at.IP.Equal(net.IPv4(127, 0, 0, 1)))
	})
}

// NewSite returns a Site without an address, for Attach.
func (s *Server) NewSite() *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = s.onError
	return e
}

// httpServer returns a server with the limits that hold at every address.
func (s *Server) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       withConn,
		ErrorLog:          zap.NewStdLog(s.log),
	}
}

func (s *Server) add(l net.Listener, e *echo.Echo) *mount {
	returned := newReturnListener(l.Addr())
	m := &mount{listener: returnableListener{l, returned, s.limit, "", s.tlsConfig()}, returns: returned}
	m.handler.Store(e)
	m.http = s.httpServer(s.requireTLS(s.limitBodyTime(s.behindProxies(m))))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts = append(s.mounts, m)
	return m
}

func (s *Server) tlsConfig() *tls.Config {
	if s.TLS == nil {
		return nil
	}
	return s.TLS.config()
}

// behindProxies gives all handlers the visitor's request instead of the proxy's.
func (s *Server) behindProxies(next http.Handler) http.Handler {
	if s.Visitor == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visitorRequest, err := s.Visitor(r)
		if err != nil {
			s.log.Warn("proxy header refused", zap.Error(err))
			w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"detail": err.Error()}) // fails if the client has gone
			return
		}
		next.ServeHTTP(w, visitorRequest)
	})
}

// shutdownGrace is the time for streams to end by themselves. The queues notify their handlers before.
const shutdownGrace = time.Second

// Run serves until ctx ends. It then lets requests finish for shutdownGrace and cuts off the rest.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	start := func(m *mount) {
		for _, l := range []net.Listener{m.listener, m.returns} {
			serving.Go(func() {
				if err := m.http.Serve(l); !errors.Is(err, http.ErrServerClosed) && !m.given.Load() {
					select {
					case failed <- fmt.Errorf("serve %s: %w", l.Addr(), err):
					default: // the first failure ends Run
					}
				}
			})
		}
	}
	s.mu.Lock()
	for _, m := range s.mounts {
		start(m)
	}
	s.start = start
	s.mu.Unlock()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.mu.Lock()
	s.start = nil
	s.mu.Unlock()
	s.shutdown()
	serving.Wait()
	return err
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	var ending sync.WaitGroup
	for a := range s.attachments() {
		ending.Go(func() {
			_ = a.server.Shutdown(ctx) // after the grace period Close cuts what is left
			s.Detach(a)
		})
	}
	for _, m := range s.mounted() {
		ending.Go(func() {
			if m.http.Shutdown(ctx) != nil {
				s.abort()
				_ = m.http.Close() // the listener is closed already; this closes the connections
			}
		})
	}
	ending.Wait()
	s.closing.Wait()
	s.abort()
}

// shutdown ends one mount of a server that continues.
func (m *mount) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if m.http.Shutdown(ctx) != nil {
		_ = m.http.Close() // the listener is closed already; this closes the connections
	}
}

func (s *Server) mounted() []*mount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mounts)
}

func (s *Server) attachments() map[*Attachment]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.attached)
}

// Close releases the addresses if Run was never called. It may be called twice.
func (s *Server) Close() {
	for _, m := range s.mounted() {
		_ = m.listener.Close()
	}
	for a := range s.attachments() {
		s.Detach(a)
	}
	s.abort()
}

// onError answers the error of a handler. After the first byte it writes nothing: an error is then a message of the
// stream.
func (s *Server) onError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	status, text := http.StatusInternalServerError, "Internal Server Error"
	var known *echo.HTTPError
	if errors.As(err, &known) {
		status, text = known.Code, fmt.Sprint(known.Message)
	} else if c.Request().Context().Err() == nil {
		s.log.Error("request failed", zap.String("path", c.Path()), zap.Error(err))
	}
	_ = c.JSON(status, map[string]string{"detail": text}) // fails if the client has gone
}
