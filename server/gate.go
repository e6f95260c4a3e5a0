package server

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
	"golang.org/x/sys/unix"
)

// Names are the host names of a Site, in lower case and without a port. Loopback names, IP literals and this
// machine's own name are always included.
type Names []string

// Gate rejects requests for a host name that is not the Site's. In a DNS rebinding attack the name of a foreign page
// resolves to this machine, and the page could then read every response.
func Gate(e *echo.Echo, names Names) { GateBy(e, func() Names { return names }) }

// GateBy is Gate with names that may change while the Site is served.
func GateBy(e *echo.Echo, names func() Names) {
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if name := hostName(c.Request().Host); !names().include(name) {
				return echo.NewHTTPError(http.StatusMisdirectedRequest,
					fmt.Sprintf("%.100q is not a name of this host. The operator can add it with --host, or under hosts in the configuration.", name))
			}
			return next(c)
		}
	})
}

// SameOrigin rejects requests of pages from another origin: such a page can post to any address. Top-level
// navigations by a link or a redirect are accepted, because then only the user sees the page and the linking page
// cannot read it. received returns the Host with which a request has reached this machine, which its public address may have
// replaced.
func SameOrigin(received func(*http.Request) string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if r := c.Request(); !IsOwnPage(r, received(r)) && !IsVisit(r) {
				return echo.NewHTTPError(http.StatusForbidden, "Requests from other sites are refused.")
			}
			return next(c)
		}
	}
}

// IsOwnPage reports whether a request comes from a page of the same origin, or from no page at all. The origin may be the public
// address, or the received Host: a browser on this machine, or behind ssh -L, uses the latter.
func IsOwnPage(r *http.Request, received string) bool {
	for _, origin := range r.Header.Values("Origin") {
		if !sameOrigin(origin, r.Host) && !sameOrigin(origin, received) {
			return false
		}
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return false
		}
	}
	return true
}

// IsVisit reports whether a browser opens the address as a top-level page, outside any frame.
func IsVisit(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Origin") == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func (n Names) include(name string) bool {
	return name == "localhost" || name == "" || net.ParseIP(name) != nil || slices.Contains(n, name) || slices.Contains(ownNames(), name)
}

// ownNames are this machine's names: the full host name, and its first label, which the local network uses.
var ownNames = sync.OnceValue(func() []string {
	full, err := os.Hostname()
	if err != nil || full == "" {
		return nil
	}
	full = hostName(full)
	first, _, _ := strings.Cut(full, ".")
	return []string{full, first}
})

// hostName returns the name in a Host header, in the form of Names.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host == host
}

// localUserListener drops connections of other users, and of processes that refuse reports.
type localUserListener struct {
	net.Listener
	refuse func(pid int) bool
}

func (l *localUserListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.isLocalUser(conn) {
			return conn, err
		}
		conn.Close()
	}
}

func (l *localUserListener) isLocalUser(conn net.Conn) bool {
	peer := peerOf(conn)
	if peer == nil || (peer.Uid != 0 && int(peer.Uid) != unix.Geteuid()) {
		return false
	}
	return l.refuse == nil || !l.refuse(int(peer.Pid))
}

// peerOf returns the credentials of the process at the other end of a unix socket, or nil for other connections.
func peerOf(conn net.Conn) (peer *unix.Ucred) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { peer, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) // nil if the socket is closed
	return peer
}
