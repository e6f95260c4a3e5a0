package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// overUDP serves a socket and returns a client of it.
func overUDP(t *testing.T, n *network) *net.UDPConn {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go n.ServeDNS(server) // Close waits for its end
	c, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UDPConn)
}

func TestLookupsByUDP(t *testing.T) {
	n := newNetwork(t, Config{Resolver: newZone("web.example.com 8.8.8.8")})
	c := overUDP(t, n)
	write(t, c, "malformed") // gets no answer
	query := pack(t, question("web.example.com.", dnsmessage.TypeA))
	write(t, c, string(query))
	reply := make([]byte, 2000)
	got, err := c.Read(reply)
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(unpack(t, reply[:got])); got != "Success 8.8.8.8" {
		t.Error(got)
	}
	if got := n.Stats(); got != (Stats{Lookups: 1}) {
		t.Errorf("got %+v, want one lookup", got)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	z := newZone()
	z.wait = make(chan struct{})
	n := newNetwork(t, Config{Resolver: z})
	c := overUDP(t, n)
	const all = 2 * maxLookups
	for i := range all {
		name := fmt.Sprintf("n%d.example.com", i)
		z.set(name, "8.8.8.8")
		write(t, c, string(pack(t, question(name+".", dnsmessage.TypeA))))
	}
	eventually(t, "64 lookups at a time", func() bool { return z.active.Load() == maxLookups })
	if got := n.Stats().Lookups; got != maxLookups {
		t.Errorf("got %d lookups, want %d", got, maxLookups)
	}
	close(z.wait)
	for i := range all {
		if _, err := c.Read(make([]byte, 2000)); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
}

func TestCloseEndsLookups(t *testing.T) {
	z := newZone()
	z.wait = make(chan struct{})
	n := newNetwork(t, Config{Resolver: z})
	c := overUDP(t, n)
	for range 2 * maxLookups {
		write(t, c, string(pack(t, question("web.example.com.", dnsmessage.TypeA))))
	}
	eventually(t, "64 lookups at a time", func() bool { return z.active.Load() == maxLookups })
	n.Close()
	if got := z.active.Load(); got != 0 {
		t.Errorf("%d lookups continue after Close", got)
	}
}

// overTCP serves a listener and returns a client of it.
func overTCP(t *testing.T, n *network) func() (net.Conn, error) {
	t.Helper()
	l := listen(t)
	go n.ServeDNSTCP(l) // Close waits for its end
	return func() (net.Conn, error) {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		return c, c.SetDeadline(time.Now().Add(patience))
	}
}

func framed(packet []byte) string {
	return string(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...))
}

func TestLookupsByTCP(t *testing.T) {
	n := newNetwork(t, Config{Resolver: newZone("web.example.com 8.8.8.8", "b.example.com 8.8.4.4")})
	dial := overTCP(t, n)
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	first, second := pack(t, question("web.example.com.", dnsmessage.TypeA)), pack(t, question("b.example.com.", dnsmessage.TypeA))
	write(t, c, framed(first)+framed(second))
	for _, want := range []string{"Success 8.8.8.8", "Success 8.8.4.4"} {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, reply); err != nil {
			t.Fatal(err)
		}
		if got := summary(unpack(t, reply)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	write(t, c, framed([]byte("malformed")))
	expectEOF(t, c)

	for range maxDNSConnections {
		if _, err := dial(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all slots are in use", func() bool { return len(n.tcpDNS) == maxDNSConnections })
	c, err = dial()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}
