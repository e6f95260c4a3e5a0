package server

import (
	"maps"
	"net"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
)

// Shared is one address with a Site for each of several routes. A route is a host name, in lower case, or a host name with a path,
// such as "gpu.lab.example/survey". Its methods may be called while it is served.
type Shared struct {
	server *Server
	front  Site

	mu    sync.Mutex
	sites Routes
}

// Routes are Sites by route. Of several routes that match a request, the longest is used. A Site at a path receives the whole path.
type Routes map[string]*echo.Echo

// maxRoute is above the length of any path of a route.
const maxRoute = 256

// find returns the Site of a request, nil without one.
func (r Routes) find(host, path string) *echo.Echo {
	name := hostName(host)
	for at := path[:min(len(path), maxRoute)]; ; {
		if site := r[name+at]; site != nil {
			return site
		}
		end := strings.LastIndexByte(at, '/')
		if end < 0 {
			break
		}
		at = at[:end]
	}
	if name == "localhost" || net.ParseIP(name) != nil {
		return r.findByPath(path)
	}
	return nil
}

// findByPath returns the Site of a request whose proxy has replaced the host name by this machine's address: that of the longest
// path that matches. Paths that several host names share match nothing.
func (r Routes) findByPath(path string) (site *echo.Echo) {
	longest := ""
	for route, one := range r {
		_, prefix, _ := strings.Cut(route, "/")
		if prefix = "/" + prefix; prefix == "/" || len(prefix) < len(longest) || path != prefix && !strings.HasPrefix(path, prefix+"/") {
			continue
		}
		if prefix == longest && one != site {
			one = nil
		}
		longest, site = prefix, one
	}
	return site
}

// MountShared takes an address as Mount does. A request without a Site gets the same 404 as a hidden Site:
// a 421 would reveal which names exist.
func (s *Server) MountShared(addr, flag string) (*Shared, error) {
	front, err := s.Mount(addr, flag)
	if err != nil {
		return nil, err
	}
	shared := &Shared{server: s, front: front, sites: Routes{}}
	front.Pre(byRoute(shared.find))
	return shared, nil
}

// Front returns the Site of the address itself, for Serve and Unmount.
func (s *Shared) Front() Site { return s.front }

func (s *Shared) find(host, path string) *echo.Echo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sites.find(host, path)
}

// byRoute lets the Site of the request's host name and path answer. All other requests get 404.
func byRoute(find func(host, path string) *echo.Echo) echo.MiddlewareFunc {
	return func(echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			site := find(c.Request().Host, c.Request().URL.Path)
			if site == nil {
				return echo.ErrNotFound
			}
			site.ServeHTTP(c.Response().Writer, c.Request())
			return nil
		}
	}
}

// NewShared returns a Site without an address, for Attach, at which some Sites of a shared address answer by their routes.
func (s *Server) NewShared(sites Routes) *echo.Echo {
	e := s.NewSite()
	e.Pre(byRoute(maps.Clone(sites).find))
	return e
}

// Site lets e answer at routes, in place of others.
func (s *Shared) Site(routes []string, e *echo.Echo) Site {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, route := range routes {
		s.sites[route] = e
	}
	return s.At(e)
}

// At returns what Site will return for a Site that has no route yet.
func (s *Shared) At(e *echo.Echo) Site { return Site{Echo: e, Addr: s.front.Addr} }

// Remove ends that, except for routes at which another Site answers by now.
func (s *Shared) Remove(routes []string, e *echo.Echo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, route := range routes {
		if s.sites[route] == e {
			delete(s.sites, route)
		}
	}
}
