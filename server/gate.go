package server

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
	"golang.org/x/sys/unix"
)

// Gate lets a request in only if it names this machine and comes from no foreign page: DNS rebinding makes a
// page's own name point here, and a page may post to any address.
func Gate(e *echo.Echo) {
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if !isLocalName(c.Request().Host) {
				return echo.NewHTTPError(http.StatusMisdirectedRequest, "This address does not go by that name.")
			}
			if origin := c.Request().Header.Get("Origin"); origin != "" && !sameOrigin(origin, c.Request().Host) {
				return echo.NewHTTPError(http.StatusForbidden, "Requests of other pages are not answered here.")
			}
			return next(c)
		}
	})
}

func isLocalName(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.Trim(name, "[]")
	return slices.Contains([]string{"localhost", ""}, name) || net.ParseIP(name) != nil
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
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	err = raw.Control(func(fd uintptr) { peer, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || peer == nil || (peer.Uid != 0 && int(peer.Uid) != unix.Geteuid()) {
		return false
	}
	return l.refuse == nil || !l.refuse(int(peer.Pid))
}
