package host

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"spacehost/internal/config"
	"spacehost/internal/identity"
	"spacehost/internal/web"
	"spacehost/server"
)

// address returns where browsers reach the Space. It is the only source of links, of the sign-in's origin and of the app's own
// address (docs/design/0028-public-address.md).
func (s *spaceRun) address() web.Address {
	if public := s.settings().URL; public.IsSet() {
		return public
	}
	return web.Address{Scheme: s.host.scheme(), Host: s.listensAt()}
}

// url is address as text.
func (s *spaceRun) url() string { return s.address().String() }

// appURL returns the address that the app knows as its own. Without a `url` it is one that the app itself reaches: the certificate of
// `tls` is not for this machine's address.
func (s *spaceRun) appURL() string {
	if public := s.settings().URL; public.IsSet() {
		return public.String()
	}
	return s.localURL()
}

// localURL returns the address at which programs on this machine, and Spaces in their networks, reach the Space.
func (s *spaceRun) localURL() string {
	local := "http://" + s.listensAt()
	if s.settings().Addr.Value == "" && s.settings().Host == "" { // at the shared address, by the route of its url
		return local + s.settings().URL.Path
	}
	return local
}

// listensAt returns the Space's own address, or its name at the shared one.
func (s *spaceRun) listensAt() string {
	if s.settings().Addr.Value != "" {
		return dialAddr(s.site())
	}
	name := s.settings().PublicNames()[0]
	if port := s.site().Addr.Port; port != 80 || s.host.scheme() != "http" {
		return name + ":" + strconv.Itoa(port)
	}
	return name
}

// scheme is that of the host's own addresses for other machines.
func (h *Host) scheme() string {
	if h.settings().TLS.IsSet() {
		return "https"
	}
	return "http"
}

// consoleAddress returns where browsers reach the console: the configured address, else the one for browsers on this machine.
func (h *Host) consoleAddress() web.Address {
	if public := h.settings().ConsoleURL; public.IsSet() {
		return public
	}
	return web.Address{Scheme: h.scheme(), Host: dialAddr(h.console)}
}

// hostNames returns the names that the Space's gate accepts.
func (s *spaceRun) hostNames() server.Names { return s.host.settings().HostNames(*s.settings()) }

// atPublicAddress gives all further handlers the request that a browser has sent to the Space, which a proxy may have changed.
func (s *spaceRun) atPublicAddress(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		set := s.settings()
		*c.Request() = *s.host.asSentTo(c.Request(), set.URL, set.SubPath, s.hostNames) // in place: echo routes the request that it has received
		return next(c)
	}
}

// atConsoleAddress is atPublicAddress for the console. Its metrics are at its own address only.
func (h *Host) atConsoleAddress(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		public := h.settings().ConsoleURL
		if public.Path != "" && c.Request().URL.Path == public.Path+"/metrics" {
			return echo.ErrNotFound
		}
		*c.Request() = *h.asSentTo(c.Request(), public, public.Path, h.consoleHostNames)
		return next(c)
	}
}

// asSentTo returns r as it was sent to a public address, which may be the zero value, or to a path below another address.
//
//  1. A connection of this machine or of a trusted proxy may come from a proxy that passes on another Host, no scheme and no path.
//     A client of another machine is connected directly, and its own Host counts.
//  2. Another configured name is one under which this request was sent.
//  3. A Space in a network of its own uses the address on which the other Space listens.
func (h *Host) asSentTo(r *http.Request, public web.Address, path string, names func() server.Names) *http.Request {
	conn := server.ConnOf(r.Context())
	if public.IsSet() && conn != nil && !conn.Attached && (conn.IsLocal() || h.trustsProxy(conn)) { // 1, 3
		if name := hostNameOf(r); name == public.HostName() || !slices.Contains(names(), name) { // 2
			return web.AtAddress(r, public)
		}
	}
	r = web.BelowSubPath(r, path)
	if public.IsSet() {
		return r
	}
	return web.BelowPrefix(r)
}

func (h *Host) trustsProxy(conn *server.Conn) bool {
	return web.Proxies(h.settings().Proxies).Trust(conn.Client.Addr())
}

// hostNameOf returns the host name of a request, without the port.
func hostNameOf(r *http.Request) string { return web.Address{Host: r.Host}.HostName() }

// isOrigin reports whether browsers reach the Space at an Origin. At a shared address the Space has one name.
func (s *spaceRun) isOrigin(origin string) bool {
	set := s.settings()
	if set.URL.IsSet() && origin == set.URL.Origin() {
		return true
	}
	if set.Addr.Value != "" {
		return server.Names(s.host.settings().HostNames(*set)).IsOrigin(origin, s.site().Addr.Port)
	}
	u, err := url.Parse(origin)
	return err == nil && slices.Contains(set.PublicNames(), u.Hostname()) && server.Names(set.PublicNames()).IsOrigin(origin, s.site().Addr.Port)
}

// ConsoleURL implements console.SignInHost: it returns the console's URL for the browser of a request to a Space; false if
// the URL is unknown.
//
//  1. The operator's setting console-url has precedence.
//  2. A browser on this machine reaches every listener of the host.
//  3. Another browser reaches a console that listens on every interface, by the name with which it reached the Space. Behind
//     a proxy the console's address is unknown.
func (h *Host) ConsoleURL(r *http.Request) (string, bool) {
	if h.settings().ConsoleURL.IsSet() { // 1
		return h.consoleAddress().String(), true
	}
	if caller, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{}); err == nil && caller.Kind == identity.Local { // 2
		return h.consoleAddress().String(), true
	}
	conn := server.ConnOf(r.Context())
	if !h.console.Addr.IP.IsUnspecified() || conn == nil || web.Scheme(r) != h.scheme() { // 3
		return "", false
	}
	name := web.Address{Scheme: h.scheme(), Host: fmt.Sprintf("%s:%d", hostWithoutPort(r), h.console.Addr.Port)}
	return name.String(), true
}

// hostWithoutPort returns the host of a request as in a URL: an IPv6 address stays in brackets.
func hostWithoutPort(r *http.Request) string {
	u := url.URL{Host: r.Host}
	if port := u.Port(); port != "" {
		return r.Host[:len(r.Host)-len(port)-1]
	}
	return r.Host
}

// IsConsole reports whether an Origin names the console.
func (h *Host) IsConsole(origin string) bool {
	public := h.settings().ConsoleURL
	return public.IsSet() && origin == public.Origin() || server.Names(h.settings().Hosts).IsOrigin(origin, h.console.Addr.Port)
}

// consoleHostNames returns the host names that the console's gate accepts.
func (h *Host) consoleHostNames() server.Names {
	names := slices.Clone(h.settings().Hosts)
	if name := h.settings().ConsoleURL.HostName(); name != "" {
		names = append(names, name)
	}
	return names
}

// openTLS reads the certificate of all addresses, if there is one.
func (h *Host) openTLS() (err error) {
	if files := h.settings().TLS; files.IsSet() {
		load := func(cert, key string) (*tls.Certificate, error) { return config.TLS{Cert: cert, Key: key}.Load() }
		h.server.TLS, err = server.NewCertificate(files.Cert, files.Key, load, h.log.Named("server"))
	}
	return err
}
