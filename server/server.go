// Package server is the HTTP edge: listeners, gate, mounting, error answers, shutdown.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
)

// Server is the listeners of one host. Mount what it should answer, then Run.
type Server struct {
	// Visitor, if set before the first Mount, turns a request into what the visitor sent to a proxy in front of us.
	// Its errors are for the visitor, with 400.
	Visitor func(*http.Request) (*http.Request, error)

	log   *zap.Logger
	base  context.Context // ends every request that outlives the shutdown's patience
	abort context.CancelFunc

	bodyPatience time.Duration

	mu     sync.Mutex
	mounts []mount
}

type mount struct {
	listener net.Listener
	returns  *returns
	http     *http.Server
}

// New returns a Server without listeners; a nil logger is silent.
func New(log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	base, abort := context.WithCancel(context.Background())
	return &Server{log: log, base: base, abort: abort, bodyPatience: bodyPatience}
}

// ListenError says why an address could not be taken.
type ListenError struct {
	Addr string
	Flag string // that chooses the address
	Err  error
}

func (e *ListenError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("%s is in use by another program: stop it, or choose another address with %s (:0 takes any free port)", e.Addr, e.Flag)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("%s needs more rights than this user has: choose a port above 1023 with %s", e.Addr, e.Flag)
	}
	return fmt.Sprintf("cannot listen on %s: %v; choose another address with %s", e.Addr, e.Err, e.Flag)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Site is one address: register there what it should answer before Run.
type Site struct {
	*echo.Echo
	Addr *net.TCPAddr // nil for a socket
}

// Mount takes a TCP address at once, so that a port in use is known before any long work, and answers there
// once Run runs. flag names the option that chose the address. Errors: *ListenError.
func (s *Server) Mount(addr, flag string) (Site, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return Site{}, &ListenError{addr, flag, err}
	}
	return Site{s.add(l), l.Addr().(*net.TCPAddr)}, nil
}

// MountSocket takes a unix socket that only this user and root may open. A socket that nobody answers is
// replaced: the caller holds the lock of its folder.
func (s *Server) MountSocket(path string, refuse func(pid int) bool) (Site, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Site{}, fmt.Errorf("replace socket: %w", err)
	}
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return Site{}, &ListenError{path, "--state", err}
	}
	return Site{Echo: s.add(&ownListener{l, refuse})}, nil
}

func (s *Server) add(l net.Listener) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = s.onError
	server := &http.Server{
		Handler:           s.hurried(s.behindProxies(e)),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       withConn,
		ErrorLog:          zap.NewStdLog(s.log),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	back := newReturns(l.Addr())
	s.mounts = append(s.mounts, mount{returnable{l, back}, back, server})
	return e
}

// behindProxies lets all that answers see the visitor's request.
func (s *Server) behindProxies(next http.Handler) http.Handler {
	if s.Visitor == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visitors, err := s.Visitor(r)
		if err != nil {
			s.log.Warn("proxy is not understood", zap.Error(err))
			w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"detail": err.Error()}) // the client has gone
			return
		}
		next.ServeHTTP(w, visitors)
	})
}

// Shared is one address with a Site for each of several names.
type Shared struct {
	server *Server
	addr   *net.TCPAddr
	named  map[string]*echo.Echo
}

// MountShared takes an address as Mount does. A request for a name without a Site is 404, in the words in which a Site
// hides itself: a 421 would tell which names there are.
func (s *Server) MountShared(addr, flag string) (*Shared, error) {
	front, err := s.Mount(addr, flag)
	if err != nil {
		return nil, err
	}
	shared := &Shared{s, front.Addr, map[string]*echo.Echo{}}
	front.Pre(func(echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			site, known := shared.named[hostName(c.Request().Host)]
			if !known {
				return echo.ErrNotFound
			}
			site.ServeHTTP(c.Response().Writer, c.Request())
			return nil
		}
	})
	return shared, nil
}

// Site is what answers at the name. Call it before Run.
func (s *Shared) Site(name string) Site {
	e := echo.New()
	e.HTTPErrorHandler = s.server.onError
	s.named[name] = e
	return Site{e, s.addr}
}

// shutdownPatience is what streams get to end by themselves; their handlers are told before by the queues.
const shutdownPatience = time.Second

// Run answers until ctx ends, then lets requests finish for a moment and cuts the rest.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 2*len(s.mounts))
	var serving sync.WaitGroup
	for _, m := range s.mounts {
		for _, l := range []net.Listener{m.listener, m.returns} {
			serving.Go(func() {
				if err := m.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
					failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
				}
			})
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.shutdown()
	serving.Wait()
	return err
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
	defer cancel()
	var ending sync.WaitGroup
	for _, m := range s.mounts {
		ending.Go(func() {
			if m.http.Shutdown(ctx) != nil {
				s.abort()
				_ = m.http.Close() // its listener is closed already; the connections go
			}
		})
	}
	ending.Wait()
	s.abort()
}

// Close gives the addresses back if Run was never called. It may be called twice.
func (s *Server) Close() {
	for _, m := range s.mounts {
		_ = m.listener.Close()
	}
	s.abort()
}

// onError answers what a handler could not. After the first byte an error is a message of the stream's own.
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
	_ = c.JSON(status, map[string]string{"detail": text}) // the client has gone
}
