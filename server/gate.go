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

// Names are what a Site goes by beside loopback's names, IP literals and this machine's own name: lower case, no port.
type Names []string

// Gate lets a request in only if it asks for the Site by a name that it goes by: DNS rebinding makes a foreign page's
// own name point here, and the page may then read what it likes.
func Gate(e *echo.Echo, names Names) {
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if name := hostName(c.Request().Host); !names.know(name) {
				return echo.NewHTTPError(http.StatusMisdirectedRequest,
					fmt.Sprintf("This address does not go by the name %.100q. Whoever runs it can allow that: --host, or hosts in the configuration.", name))
			}
			return next(c)
		}
	})
}

// SameOrigin refuses requests of foreign pages: a page may post to any address. A link may lead here, and so may a
// redirect: then the person sees what the page says, and the page that sent them does not.
func SameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !IsOwnPage(c.Request()) && !IsVisit(c.Request()) {
			return echo.NewHTTPError(http.StatusForbidden, "Requests of other pages are not answered here.")
		}
		return next(c)
	}
}

// IsOwnPage reports whether a request comes from a page of the address that it asks, or from no page at all.
func IsOwnPage(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		if !sameOrigin(origin, r.Host) {
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

// IsVisit reports whether a browser opens an address as a page of its own, in no frame.
func IsVisit(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Origin") == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func (n Names) know(name string) bool {
	return name == "localhost" || name == "" || net.ParseIP(name) != nil || slices.Contains(n, name) || slices.Contains(ownNames(), name)
}

// ownNames are this machine's: in full, and its first label, by which its neighbours know it.
var ownNames = sync.OnceValue(func() []string {
	full, err := os.Hostname()
	if err != nil || full == "" {
		return nil
	}
	full = hostName(full)
	first, _, _ := strings.Cut(full, ".")
	return []string{full, first}
})

// hostName is the name in a Host header, as Names have it.
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

// ownListener drops connections of other users, and of processes that refuse names.
type ownListener struct {
	net.Listener
	refuse func(pid int) bool
}

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.isOwn(conn) {
			return conn, err
		}
		conn.Close()
	}
}

func (l *ownListener) isOwn(conn net.Conn) bool {
	peer := peerOf(conn)
	if peer == nil || (peer.Uid != 0 && int(peer.Uid) != unix.Geteuid()) {
		return false
	}
	return l.refuse == nil || !l.refuse(int(peer.Pid))
}

// peerOf is who connected to a unix socket; nil for other connections.
func peerOf(conn net.Conn) (peer *unix.Ucred) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { peer, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) // nil: a closed one
	return peer
}
