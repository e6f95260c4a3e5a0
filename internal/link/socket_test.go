package link

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel ends a connection of either end that has no acknowledgement for 15 s.
func TestSocketOptions(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	setOptions(conn)
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[int]int{unix.TCP_USER_TIMEOUT: 15000, unix.TCP_KEEPIDLE: 5, unix.TCP_KEEPINTVL: 5} {
		err := raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name); err != nil || got != want {
				t.Errorf("option %d: got %d, %v, want %d", name, got, err, want)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
