package server

import (
	"net"
	"net/url"
	"strconv"
)

// IsOrigin reports whether origin, "http://name:port", is one at which browsers reach a listener at port. The name
// must be one of n, a loopback name, this machine's name or one of its addresses. The port must be the listener's or,
// for a proxy, the default of the scheme. Without the check an attacker could choose the origin that receives data
// meant for the listener.
func (n Names) IsOrigin(origin string, port int) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || origin != u.Scheme+"://"+u.Host {
		return false
	}
	if p := u.Port(); p != "" && p != strconv.Itoa(port) {
		return false
	}
	name := hostName(u.Host)
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback() || isOwnAddress(ip)
	}
	return name != "" && n.include(name)
}

// isOwnAddress reads the addresses each time: those of a laptop change.
func isOwnAddress(ip net.IP) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, one := range all {
		if own, ok := one.(*net.IPNet); ok && own.IP.Equal(ip) {
			return true
		}
	}
	return false
}
