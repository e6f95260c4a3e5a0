package server

import (
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
)

// Attachment is a handler that serves listeners in the network of one owner. Close ends it.
type Attachment struct {
	server  *http.Server
	serving sync.WaitGroup
}

// Attach serves e on listeners whose clients all belong to owner, for example listeners in the network namespace of a
// Space. Conn.Owner of their connections returns owner without a lookup. Attach takes the listeners over,
// which may accept connections of any kind.
func (s *Server) Attach(e *echo.Echo, owner string, listeners ...net.Listener) *Attachment {
	a := &Attachment{server: s.httpServer(s.limitBodyTime(e))} // no client here is a trusted proxy
	for _, l := range listeners {
		returned := newReturnListener(l.Addr())
		for _, one := range []net.Listener{returnableListener{l, returned, s.limit, owner, nil}, returned} {
			a.serving.Go(func() {
				if err := a.server.Serve(one); !errors.Is(err, http.ErrServerClosed) {
					s.log.Warn("listener in the network of a space failed", zap.String("space", owner), zap.Error(err))
				}
			})
		}
	}
	s.attach(a)
	return a
}

// Close closes the listeners and cuts all connections. It may be called twice.
func (a *Attachment) Close() {
	_ = a.server.Close() // its errors report listeners that are closed already
	a.serving.Wait()
}

// attach keeps an Attachment until the shutdown.
func (s *Server) attach(a *Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached == nil {
		s.attached = map[*Attachment]bool{}
	}
	s.attached[a] = true
}

// Detach closes Attachments. It may be called twice.
func (s *Server) Detach(all ...*Attachment) {
	for _, a := range all {
		a.Close()
		s.mu.Lock()
		delete(s.attached, a)
		s.mu.Unlock()
	}
}
