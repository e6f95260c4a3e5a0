package server

import (
	"net"
	"net/url"
	"strconv"
)

// IsOrigin reports whether origin, "http://name:port", is one at which browsers reach a listener at port: by a name of
// these, a loopback name, this machine's own, or one of its addresses, and at that port or, through a proxy, at the
// scheme's own. Else whoever could choose an origin could have sent to it what is meant for the listener.
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
	return name != "" && n.know(name)
}

// isOwnAddress asks each time: a laptop's addresses change.
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
