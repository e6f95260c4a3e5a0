package link

import "net"

// Address returns the address of the other end.
func (l *Link) Address() net.Addr { return l.control.RemoteAddr() }
