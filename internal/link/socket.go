package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive lets the kernel find a dead peer of an idle connection. With TCP_USER_TIMEOUT, the kernel ends such a connection once nothing
// has arrived for that time and one probe has no answer (tcp_keepalive_timer). Probes that began only after LostAfter left their first
// answer 5 s: on a machine with a load of 35 per CPU, the stream of a start timed out on loopback while its link was connected.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: LostAfter / 3, Interval: LostAfter / 3, Count: 3}

// setOptions lets the kernel end a TCP connection that has no acknowledgement for LostAfter. Other connections have no such option.
func setOptions(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed: the next read reports it
	}
	_ = raw.Control(func(fd uintptr) { // a kernel without the option keeps its own timeout, and beats find the dead peer
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(LostAfter/time.Millisecond))
	})
	_ = tcp.SetKeepAliveConfig(keepAlive)
}
